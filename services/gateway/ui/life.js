// How long the session lasts: it goes on while somebody is at the page; a page that is only looked at is warned, then ends. It has a clock of its own, so that
// nothing else that the page waits for can keep the warning back.
import { call, element, owes, page, say } from "/ui/hub.js";

const LONGEST_MS = 5 * 60 * 1000;
const ASK_AGAIN_MS = 1000;
let soonMs = LONGEST_MS;
let notBefore = 0;
let timer = null;
let watched = 0;

const leftMs = () => Date.parse(page.session.expires_at) - (Date.now() + page.aheadMs);

// Soon is a quarter of what an unused session lasts, five minutes at most; a session is not told more often that it is used.
function measure() {
  soonMs = Math.max(1000, Math.min(LONGEST_MS, leftMs() / 4));
  notBefore = Date.now() + soonMs;
}

export function begin() {
  measure();
  watch();
}

export function end() {
  clearTimeout(timer);
  watched += 1;
  element("ending").hidden = true;
}

function tell() {
  const soon = leftMs() < soonMs;
  if (soon) element("ends-at").textContent = new Date(page.session.expires_at).toLocaleTimeString();
  if (element("ending").hidden === soon) element("ending").hidden = !soon;
  return soon;
}

// Another page of this browser may have been used meanwhile, so the hub is asked when the end is near; whoever it does not answer is warned of what was known.
async function watch() {
  clearTimeout(timer);
  const mine = (watched += 1);
  let nextMs = leftMs() - soonMs + 1;
  if (nextMs <= 0) {
    try {
      const known = await call("GET", "/v1/session");
      if (mine !== watched) return;
      page.session.expires_at = known.expires_at;
    } catch (error) {
      // The call itself tells of a session that has ended, and clears the page.
      if (mine !== watched || !page.session) return;
      say(error.message, true);
    }
    nextMs = tell() ? ASK_AGAIN_MS : leftMs() - soonMs + 1;
  } else {
    tell();
  }
  timer = setTimeout(watch, Math.min(nextMs, LONGEST_MS));
}

async function used() {
  if (!page.session || owes() || Date.now() < notBefore) return;
  notBefore = Date.now() + soonMs;
  try {
    const extended = await call("POST", "/v1/session");
    page.session.expires_at = extended.expires_at;
    // Near the longest that a session lasts, being used helps no more.
    element("stay").hidden = extended.expires_at >= extended.ends_at;
    if (!element("stay").hidden) measure();
    watch();
  } catch (error) {
    say(error.message, true);
  }
}
for (const kind of ["keydown", "pointerdown", "click"]) document.addEventListener(kind, used);
