// Letting in the command line that opened this page: its code is in the address, and the answer takes the browser back to it, on this machine.
import { call, element, page, say } from "/ui/hub.js";
import { shown } from "/ui/text.js";

const LINK = /^#login=([A-Z]{4}-[A-Z]{4})$/;
let code = "";

// Where a sign-in at a provider comes back to: what this page was opened for is not lost on the way.
export const returnTo = () => `/ui/${/^#[\w.~%/?=&+-]{0,1024}$/.test(location.hash) ? location.hash : ""}`;

function ask(asks) {
  element("let-in-what").replaceChildren(shown(asks ? asks.description || "A command line" : ""));
  element("let-in-from").textContent = asks ? asks.client_address : "";
  element("let-in-who").replaceChildren(shown(asks ? page.session.user : ""));
  element("let-in-code").textContent = asks ? code : "";
  element("let-in").hidden = !asks;
  // One question at a time: the rest of the page waits.
  document.body.classList.toggle("letting-in", Boolean(asks));
}

export function forgetLogin() {
  code = "";
  ask(null);
}

export async function showLogin() {
  const found = LINK.exec(location.hash);
  // What is decided on is what is shown: another code is asked for anew.
  forgetLogin();
  if (!found || !page.session) return;
  const mine = (code = found[1]);
  try {
    const asks = await call("POST", "/v1/devices/answer", { user_code: mine, browser: true });
    if (code !== mine || !page.session) return;
    ask(asks);
    element("let-in-deny").focus();
  } catch (error) {
    fail(error);
  }
}

// The code is used up: a reload must not ask again.
function leave() {
  history.replaceState(null, "", "/ui/");
  forgetLogin();
}

// A session that has ended, or a hub that is away, is no answer: the address still says what is asked.
function fail(error) {
  if (error.status === 404 || error.status === 409) leave();
  say(error.message, true);
}

function setBusy(busy) {
  for (const button of ["let-in-approve", "let-in-deny"]) element(button).disabled = busy;
}

async function decide(answer) {
  setBusy(true);
  try {
    const { redirect } = await call("POST", "/v1/devices/answer", { user_code: code, answer, browser: true });
    // In place of the question, to which no way leads back.
    location.replace(redirect);
  } catch (error) {
    setBusy(false);
    fail(error);
  }
}
element("let-in-approve").addEventListener("click", () => decide("approve"));
element("let-in-deny").addEventListener("click", () => decide("deny"));

// The same page, opened again with another address, is not loaded again.
addEventListener("hashchange", showLogin);
