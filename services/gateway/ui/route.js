// Which part of the page is shown: the address says it, so that the browser's back, a reload and a link all work. A part says what it needs to be shown,
// and is asked again and again for as long as it is.
import { element, page, say } from "/ui/hub.js";
import * as ask from "/ui/ask.js";

const REFRESH_MS = 5000;
const FIRST = "clusters";
const parts = new Map();
let now = null;
let timer = null;
let failed = false;
let told = "";

// `pick` makes of the address' words and question which part it is; `show` fills it anew, `refresh` again.
export function add(name, routed) {
  parts.set(name, routed);
}

export const to = (...words) => `#${words.map(encodeURIComponent).join("/")}`;

function parse() {
  const [way, question = ""] = location.hash.slice(1).split("?");
  try {
    return { words: way.split("/").map(decodeURIComponent), question: new URLSearchParams(question) };
  } catch {
    return { words: [FIRST], question: new URLSearchParams() };
  }
}

function find() {
  const { words, question } = parse();
  const name = words[0] === "device" ? "account" : words[0];
  return { name: parts.has(name) ? name : FIRST, words: words.slice(1), question };
}

// Away from one part and to another. Who came by a link goes on reading at the new part's name; who came by signing in hears of nothing else.
async function go(byPerson) {
  if (!page.session) return;
  clearTimeout(timer);
  ask.close();
  if (now && parts.get(now.name).hide) parts.get(now.name).hide();
  const mine = (now = find());
  const routed = parts.get(mine.name);
  const section = element(routed.pick ? routed.pick(mine) : mine.name);
  for (const one of element("pages").children) one.hidden = one !== section;
  for (const link of element("nav").querySelectorAll("a")) {
    if (link.hash === `#${mine.name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = section.querySelector("h2");
  document.title = `${mine.words.length ? `${mine.words.join("/")} · ` : ""}${mine.name[0].toUpperCase()}${mine.name.slice(1)} · Herdsman`;
  if (byPerson) title.focus();
  if (byPerson) say(told);
  told = "";
  await run(() => routed.show(mine), mine);
}

async function run(work, mine) {
  try {
    await work();
    // Its own complaint is over; what somebody else said stays.
    if (failed && mine === now) say("");
    if (mine === now) failed = false;
  } catch (error) {
    if (mine !== now || !page.session) return;
    failed = true;
    say(error.message, true);
  }
  if (mine === now && page.session) schedule();
}

function schedule() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    // Nobody looks: what is behind another window costs the hub nothing.
    if (document.hidden) schedule();
    else refresh();
  }, REFRESH_MS);
}

// What is shown, as it is now. Also after the person did something. Whoever waits for an answer asks `isNow` whether it is still wanted.
export async function refresh() {
  const mine = now;
  if (!mine || !page.session) return;
  clearTimeout(timer);
  await run(() => parts.get(mine.name).refresh(mine), mine);
}

// To another part, which then says this.
export function leaveFor(address, text) {
  told = text;
  location.hash = address;
}

export const current = () => now;
export const isNow = (mine) => mine === now && Boolean(page.session);

export function begin() {
  failed = false;
  element("nav").hidden = element("pages").hidden = false;
  go(false);
}

export function end() {
  clearTimeout(timer);
  ask.close();
  now = null;
  failed = false;
  element("nav").hidden = element("pages").hidden = true;
  document.title = "Herdsman";
  for (const routed of parts.values()) if (routed.forget) routed.forget();
}

addEventListener("hashchange", () => go(true));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
