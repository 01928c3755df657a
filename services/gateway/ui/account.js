// One's accounts at providers, as the hub last saw them there.
import { API, call, element, page, row, when } from "/ui/hub.js";

export async function showAccount() {
  const user = await call("GET", `${API}/users/${encodeURIComponent(page.session.user)}`);
  const identities = (user.status || {}).identities || [];
  element("account-rows").replaceChildren(
    ...identities.map((found) =>
      row(
        [found.provider, found.userName, (found.groups || []).length, when(found.refreshedAt), found.gone || found.truncated],
        ["", "", "Groups", "Read", ""],
      ),
    ),
  );
  element("account").hidden = identities.length === 0;
}
