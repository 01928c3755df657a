// How every part of the page talks to the hub and to the person. The session is a cookie that no script reads; with every change the page sends
// the proof that it is the hub's own. Text is only ever set as text.
import { shown } from "/ui/text.js";

export const GROUP = "management.herdsman.dev";
export const API = `/apis/${GROUP}/v1`;
const MERGE_PATCH = "application/merge-patch+json";
const TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PAGE = 500;
const ENDED = "Your session has ended. Sign in again.";
const CSRF_COOKIE = "__Host-herdsman-csrf=";
export const element = (id) => document.getElementById(id);

// What is true of this page now: the session (null = nobody is signed in), and how far the hub's clock is before this machine's.
export const page = { session: null, aheadMs: 0, ended: () => {}, enter: () => {} };

// What has to be done before the hub lets this person do anything else.
export const owes = () => page.session.must_change_password || page.session.must_set_second_factor;

// The front door hears of what was done a moment later: asks until it has.
export async function untilDone(what) {
  for (let tries = 0; tries < 50; tries += 1) {
    const known = await call("GET", "/v1/session");
    if (!known[what]) return Object.assign(page.session, known);
    await new Promise((done) => setTimeout(done, 100));
  }
  throw new Error("It is done, and the hub does not act on it yet: reload the page in a moment.");
}

export const hasProof = () => document.cookie.includes(CSRF_COOKIE);

export function say(text, bad = false) {
  element("message").replaceChildren(shown(text));
  element("message").classList.toggle("bad", bad);
}

export async function call(method, path, body, accept = "application/json") {
  const headers = { Accept: accept };
  const proof = document.cookie.split("; ").find((part) => part.startsWith(CSRF_COOKIE));
  if (proof && method !== "GET") headers["X-CSRF-Token"] = proof.slice(CSRF_COOKIE.length);
  if (body !== undefined) headers["Content-Type"] = method === "PATCH" ? MERGE_PATCH : "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin", cache: "no-store" });
  } catch {
    throw new Error("The hub does not answer. Is it running, and is the network up?");
  }
  const text = await answer.text();
  let content = {};
  try {
    content = text ? JSON.parse(text) : {};
  } catch {
    throw new Error(`The hub answered ${answer.status} in a form that this page does not know.`);
  }
  const date = Date.parse(answer.headers.get("Date") || "");
  if (date) page.aheadMs = date - Date.now();
  if (answer.ok) return content;
  if (answer.status === 401 && page.session) {
    page.ended();
    // Said here, whoever asked: a caller whose part of the page is gone has nowhere to say it.
    say(ENDED, true);
    throw new Error(ENDED);
  }
  const error = new Error(content.message || `The hub answered ${answer.status}.`);
  throw Object.assign(error, { status: answer.status, reason: content.reason, causes: (content.details || {}).causes || [] });
}

export const path = (plural, name) => `${API}/${plural}/${encodeURIComponent(name)}`;

export const made = (kind, name, spec) => ({ apiVersion: `${GROUP}/v1`, kind, metadata: { name }, spec });

// So many pages of a list; `more` says whether there are others. With `cells`, lines as the hub prints them, without the objects.
export async function list(plural, { fields = "", pages = 1, cells = false } = {}) {
  const items = [];
  let columns = [];
  let next = "";
  for (let count = 0; count < pages && (next || !count); count += 1) {
    const query = new URLSearchParams({ limit: PAGE });
    if (fields) query.set("fieldSelector", fields);
    if (next) query.set("continue", next);
    const answer = await call("GET", `${API}/${plural}?${query}`, undefined, cells ? TABLE : undefined);
    items.push(...(answer.items || answer.rows || []));
    columns = columns.length ? columns : (answer.columnDefinitions || []).map((column) => column.name);
    next = (answer.metadata || {}).continue || "";
  }
  return { items: cells ? items.map((line) => cellsOf(columns, line)) : items, more: Boolean(next) };
}

const cellsOf = (columns, line) => Object.fromEntries(columns.map((name, index) => [name, line.cells[index]]));

const TRIES = 5;

// Changes what is there now: somebody else's change meanwhile is not lost. `change` gets the object and answers the part to write, or null for nothing.
export async function change(plural, name, work) {
  for (let left = TRIES; ; left -= 1) {
    const found = await call("GET", path(plural, name));
    const wanted = work(found);
    if (!wanted) return found;
    try {
      return await call("PATCH", path(plural, name), { metadata: { resourceVersion: found.metadata.resourceVersion }, ...wanted });
    } catch (error) {
      if (error.reason !== "Conflict" || left <= 1) throw error;
    }
  }
}

export const firstShown = (part, selector) => [...part.querySelectorAll(selector)].find((found) => found.offsetParent);

// A form's button is off while its request runs, so that it can't be sent twice.
export function onSubmit(id, work) {
  element(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter || element(id).querySelector("button[type=submit]");
    button.disabled = true;
    say("");
    try {
      await work();
    } catch (error) {
      say(error.message, true);
      const field = firstShown(element(id), error.field || "input[type=password]") || firstShown(element(id), "input");
      if (field) field.focus();
      if (field && field.select) field.select();
    } finally {
      button.disabled = false;
    }
  });
}

export async function copy(part, said) {
  try {
    await navigator.clipboard.writeText(part.textContent);
    say(said);
  } catch {
    say("This browser does not let the page copy: mark the text and copy it yourself.", true);
  }
}

export function when(text) {
  return text ? new Date(text).toLocaleString() : "";
}

// A line of a table. On a narrow screen, where the head of the table is gone, each cell says itself what it is.
export function row(cells, labels = []) {
  const line = document.createElement("tr");
  cells.forEach((value, index) => {
    const cell = line.insertCell();
    cell.append(...(Array.isArray(value) ? value : [value instanceof Node ? value : shown(value)]));
    if (labels[index]) cell.dataset.before = labels[index];
  });
  return line;
}
