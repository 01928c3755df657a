// What others wrote: names, reasons, messages of clusters. It never becomes markup; what can't be seen or turns text around is made visible,
// and its direction stays its own. Amounts with their units.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0]/gu;
const named = (sign) => `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
const spaced = (text) => String(text ?? "").replace(/[\t\n\r]+/g, " ");

// For where nothing but text goes: options, labels, titles.
export const plain = (text) => spaced(text).replace(HIDDEN, (sign) => `[${named(sign)}]`);

// For everywhere else. Nothing for no text, so that an empty cell is empty.
export function shown(text) {
  const whole = spaced(text);
  if (!whole) return "";
  const made = document.createElement("bdi");
  let done = 0;
  for (const found of whole.matchAll(HIDDEN)) {
    made.append(whole.slice(done, found.index), part("span", "hidden-sign", named(found[0])));
    done = found.index + found[0].length;
  }
  made.append(whole.slice(done));
  return made;
}

export function part(tag, kind, ...content) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(...content);
  return made;
}

const FACTORS = { n: 1e-9, u: 1e-6, m: 1e-3, "": 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 };
const BINARY = { Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60 };
const QUANTITY = /^([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]|[KMGTPE]i)?$/;

// A Kubernetes quantity as a number; NaN for what is none.
export function parseAmount(text) {
  const found = QUANTITY.exec(text ?? "");
  return found ? Number(found[1]) * (FACTORS[found[2] || ""] ?? BINARY[found[2]]) : NaN;
}

const rounded = (value) => value.toLocaleString(undefined, { maximumFractionDigits: value < 10 ? 2 : 1 });

export function amount(resource, text) {
  const value = parseAmount(text);
  if (Number.isNaN(value)) return plain(text);
  if (/memory|storage|hugepages/.test(resource)) {
    const unit = Object.keys(BINARY).findLast((name) => Math.abs(value) >= BINARY[name]);
    return unit ? `${rounded(value / BINARY[unit])} ${unit}B` : `${rounded(value)} B`;
  }
  return /cpu$/.test(resource) ? `${rounded(value)} CPU` : rounded(value);
}

// How much of what: in words that say all, and a bar that repeats them.
export function useOf(resource, used, limit) {
  const [now, most] = [parseAmount(used), parseAmount(limit)];
  const share = most > 0 && !Number.isNaN(now) ? now / most : NaN;
  const of = `${used === undefined ? "unknown" : amount(resource, used)} of ${amount(resource, limit)}`;
  const line = part("div", "use", part("code", "", plain(resource)), ` ${of}`);
  if (Number.isNaN(share)) return line;
  line.append(` (${rounded(share * 100)} %)`);
  const bar = document.createElement("meter");
  bar.value = Math.min(1, share);
  bar.setAttribute("aria-label", `${plain(resource)}: ${of}`);
  line.append(bar);
  return line;
}

const SPANS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

export function duration(seconds) {
  const told = [];
  let rest = seconds;
  for (const [unit, size] of SPANS) {
    const count = Math.floor(rest / size);
    if (count) told.push(`${count} ${unit}`);
    rest -= count * size;
  }
  return told.join(" ") || "0 s";
}

export const counted = (count, one, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;
