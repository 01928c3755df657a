// One's accounts at providers, as the hub last saw them there, and the way to link another.
import { API, call, element, page, row, when } from "/ui/hub.js";
import { showFactor } from "/ui/factor.js";

export async function showAccount() {
  const user = await call("GET", `${API}/users/${encodeURIComponent(page.session.user)}`);
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
  const linked = new Set(identities.map((found) => found.provider));
  const open = options.filter((option) => option.flow === "redirect" && !linked.has(option.provider));
  element("links").replaceChildren(...open.map(link));
  element("account").hidden = identities.length === 0 && open.length === 0;
}

function link(option) {
  const made = document.createElement("a");
  made.className = "button";
  made.href = `/v1/sign-in/${encodeURIComponent(option.provider)}?link=1&return_to=/ui/`;
  made.textContent = `Link your account at ${option.display_name}`;
  return made;
}
