// Tables that are filled again and again. A line that says the same stays as it is, and the focus stays where it was.
import { plain } from "/ui/text.js";

const said = new WeakMap();

// `context`: what lines depend on beside their item, such as what the person may do.
export function fill(body, items, keyOf, make, context = null) {
  const before = new Map([...body.rows].map((line) => [line.dataset.key, line]));
  const lines = items.map((item) => {
    const key = keyOf(item);
    const says = JSON.stringify([item, context]);
    const old = before.get(key);
    if (old && said.get(old) === says) return old;
    const line = make(item);
    line.dataset.key = key;
    said.set(line, says);
    return line;
  });
  if (lines.length === body.rows.length && lines.every((line, index) => line === body.rows[index])) return;
  const focused = document.activeElement;
  const kept = body.contains(focused) ? { key: focused.closest("tr").dataset.key, act: focused.dataset.act } : null;
  body.replaceChildren(...lines);
  if (!kept) return;
  const line = lines.find((one) => one.dataset.key === kept.key);
  const again = line && [...line.querySelectorAll("[data-act]")].find((one) => one.dataset.act === kept.act);
  // What had the focus may be gone: the table's own name is where one goes on reading.
  const next = again || body.closest("[tabindex]");
  if (next) next.focus();
}

// A button of a line: `act` tells it from the line's others, and its label says of what.
export function button(act, text, of, work) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.dataset.act = act;
  made.setAttribute("aria-label", `${text.replace(/…$/, "")} ${plain(of)}`);
  made.addEventListener("click", work);
  return made;
}

// Where there is nothing, the page says what to do instead of an empty table.
export function showEmpty(table, none, isEmpty) {
  table.hidden = isEmpty;
  none.hidden = !isEmpty;
}

// Options that change under a person's hands keep what was chosen.
export function setOptions(select, options) {
  const says = JSON.stringify(options);
  if (said.get(select) === says) return;
  said.set(select, says);
  const chosen = select.value;
  select.replaceChildren(...options.map((one) => new Option(plain(one.text), one.value)));
  if (options.some((one) => one.value === chosen)) select.value = chosen;
}
