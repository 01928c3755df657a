// Signing out: here first, then at the provider, if it is to end there too. The browser comes back from there with the state that it was sent with.
import { call, element, page, say } from "/ui/hub.js";

const KEPT = "herdsman-signing-out";
const DONE = "You are signed out.";

element("sign-out").addEventListener("click", async () => {
  let left = {};
  try {
    left = await call("POST", "/v1/logout");
    say(left.still_signed_in_at ? `${DONE} You may still be signed in at ${left.still_signed_in_at}.` : DONE);
  } catch (error) {
    say(error.message, true);
  }
  // Nothing of the session stays on the page, whatever the provider does with the browser.
  page.ended();
  if (!/^https?:\/\//.test(left.url || "")) return;
  sessionStorage.setItem(KEPT, left.state);
  location.assign(left.url);
});

// Whoever makes a link to here must not make the page say something.
export function tellLeft() {
  const state = new URLSearchParams(location.search).get("state");
  if (!state) return;
  if (state === sessionStorage.getItem(KEPT)) say(DONE);
  sessionStorage.removeItem(KEPT);
  history.replaceState(null, "", `/ui/${location.hash}`);
}
