// How long the session lasts: it goes on while somebody is at the page; a page that is only looked at is warned, then ends.
import { call, element, page, say } from "/ui/hub.js";

const LONGEST_MS = 5 * 60 * 1000;
let soonMs = LONGEST_MS;
let notBefore = 0;

const leftMs = () => Date.parse(page.session.expires_at) - (Date.now() + page.aheadMs);

// Soon is a quarter of what an unused session lasts, five minutes at most; a session is not told more often that it is used.
export function begin() {
  soonMs = Math.max(1000, Math.min(LONGEST_MS, leftMs() / 4));
  notBefore = Date.now() + soonMs;
}

// Called now and then. Another page of this browser may have been used meanwhile, so the hub is asked before anybody is warned.
export async function check() {
  if (leftMs() < soonMs) Object.assign(page.session, await call("GET", "/v1/session"));
  const soon = leftMs() < soonMs;
  if (soon) element("ends-at").textContent = new Date(page.session.expires_at).toLocaleTimeString();
  if (element("ending").hidden === soon) element("ending").hidden = !soon;
}

// How long until there may be something else to say.
export function nextMs() {
  const left = leftMs();
  return Math.max(500, left < soonMs ? left + 1000 : left - soonMs + 100);
}

async function used() {
  if (!page.session || page.session.password !== undefined || Date.now() < notBefore) return;
  notBefore = Date.now() + soonMs;
  try {
    const extended = await call("POST", "/v1/session");
    page.session.expires_at = extended.expires_at;
    // Near the longest that a session lasts, being used helps no more.
    element("stay").hidden = extended.expires_at >= extended.ends_at;
    if (!element("stay").hidden) begin();
    await check();
  } catch (error) {
    say(error.message, true);
  }
}
for (const kind of ["keydown", "pointerdown", "click"]) document.addEventListener(kind, used);
