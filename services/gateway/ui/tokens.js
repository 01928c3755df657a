// One's own sessions and tokens: listed, revoked, and API tokens made. The text of a new one is shown once and kept nowhere.
import { API, GROUP, call, copy, element, list, onSubmit, page, path, row, say, when } from "/ui/hub.js";
import { button, fill } from "/ui/table.js";

const PURPOSES = { session: "Browser", login: "Command line", exec: "kubectl", kubeconfig: "Kubeconfig", api: "API token", federated: "Workload" };
const LABELS = ["", "", "From", "Since", "Last used", "Until"];

export async function showTokens() {
  const mine = page.session;
  const found = await list("tokens", { fields: `spec.user=${mine.user}`, pages: Infinity });
  if (mine === page.session) fill(element("token-rows"), found.items, (token) => token.metadata.name, tokenRow);
}

function tokenRow(token) {
  const { spec, metadata, status = {} } = token;
  const own = metadata.name === page.session.name;
  const what = PURPOSES[spec.purpose] || spec.purpose;
  const limits = [spec.readOnly && "read-only", spec.clusters && spec.clusters.length && `only ${spec.clusters.join(", ")}`].filter(Boolean).join(", ");
  const description = [spec.description, limits && `(${limits})`].filter(Boolean).join(" ");
  const line = row(
    [what + (own ? " (this one)" : ""), description, spec.clientAddress, when(metadata.creationTimestamp), when(status.lastUsed), when(spec.expiresAt)],
    LABELS,
  );
  const revoke = button("revoke", "Revoke", `${line.cells[0].textContent} ${description}`.trim(), async () => {
    revoke.disabled = true;
    try {
      await call("DELETE", path("tokens", metadata.name));
      if (own) page.ended();
      else await showTokens();
      say(own ? "You are signed out." : "It is revoked.");
    } catch (error) {
      revoke.disabled = false;
      say(error.message, true);
    }
  });
  line.insertCell().append(revoke);
  return line;
}

export function forgetNewToken() {
  element("new-token").textContent = "";
  element("made").hidden = true;
}

onSubmit("make-token", async () => {
  forgetNewToken();
  const clusters = element("token-clusters").value.split(/[\s,]+/).filter(Boolean);
  const spec = {
    description: element("token-description").value.trim(), clusters, readOnly: element("token-read-only").checked,
    ttlSeconds: Number(element("token-days").value) * 86400,
  };
  const issued = await call("POST", `${API}/tokenrequests`, { apiVersion: `${GROUP}/v1`, kind: "TokenRequest", spec });
  element("make-token").reset();
  element("new-token").textContent = issued.status.token;
  element("made-until").textContent = when(issued.status.expiresAt);
  element("made").hidden = false;
  element("copy").focus();
  await showTokens();
});

element("copy").addEventListener("click", () => copy(element("new-token"), "The token is copied."));

element("made-done").addEventListener("click", () => {
  forgetNewToken();
  element("token-description").focus();
});
