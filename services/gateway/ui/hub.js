// How every part of the page talks to the hub and to the person. The session is a cookie that no script reads; with every change the page sends
// the proof that it is the hub's own. Text is only ever set as text.

export const API = "/apis/management.herdsman.dev/v1";
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
  element("message").textContent = text;
  element("message").classList.toggle("bad", bad);
}

export async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  const proof = document.cookie.split("; ").find((part) => part.startsWith(CSRF_COOKIE));
  if (proof && method !== "GET") headers["X-CSRF-Token"] = proof.slice(CSRF_COOKIE.length);
  if (body !== undefined) headers["Content-Type"] = "application/json";
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
  throw Object.assign(error, { status: answer.status, reason: content.reason });
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
      if (field) field.select();
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
    cell.textContent = value ?? "";
    if (labels[index]) cell.dataset.before = labels[index];
  });
  return line;
}
