// One's own account: accounts at providers as the hub last saw them there, and the way to link another. Sessions and tokens are in `tokens.js`, the second
// factor in `factor.js`, letting in a machine without a browser in `device.js`.
import { call, element, page, path, row, when } from "/ui/hub.js";
import * as route from "/ui/route.js";
import { forgetDevice, showDevice } from "/ui/device.js";
import { forgetFactor, showFactor } from "/ui/factor.js";
import { forgetNewToken, showTokens } from "/ui/tokens.js";

async function showAccounts() {
  const user = await call("GET", path("users", page.session.user));
  if (!page.session) return;
  showFactor(Boolean((user.status || {}).secondFactor));
  const identities = (user.status || {}).identities || [];
  element("account-rows").replaceChildren(
    ...identities.map((found) =>
      row(
        [found.provider, found.userName, (found.groups || []).length, when(found.refreshedAt), found.gone || found.truncated],
        ["", "", "Groups", "Read", ""],
      ),
    ),
  );
  element("account-table").hidden = identities.length === 0;
  const { options } = await call("GET", "/v1/sign-in");
  if (!page.session) return;
  const linked = new Set(identities.map((found) => found.provider));
  const open = options.filter((option) => option.flow === "redirect" && !linked.has(option.provider));
  element("links").replaceChildren(...open.map(link));
  element("accounts").hidden = identities.length === 0 && open.length === 0;
}

function link(option) {
  const made = document.createElement("a");
  made.className = "button";
  made.href = `/v1/sign-in/${encodeURIComponent(option.provider)}?link=1&return_to=/ui/%23account`;
  made.textContent = `Link your account at ${option.display_name}`;
  return made;
}

route.add("account", {
  async show() {
    // An account at a provider has its second factor there.
    element("second-factor").hidden = page.session.provider !== "local";
    showDevice();
    await Promise.all([showTokens(), showAccounts()]);
  },
  refresh: showTokens,
  hide() {
    element("second-factor").hidden = true;
    // What is shown once is not there again when one comes back, unless it is still to be confirmed.
    forgetNewToken();
  },
  forget() {
    forgetNewToken();
    forgetDevice();
    forgetFactor();
    for (const part of ["factor-device", "factor-codes"]) element(part).hidden = true;
    for (const rows of ["token-rows", "account-rows"]) element(rows).replaceChildren();
  },
});
