// Sign-in, the forced choice of a password, and the clusters that one may see, over the same API that kubectl uses.
// Who is signed in is a cookie that no script reads; with every change the page sends the proof that it is the hub's own. Text is only ever set as text.
"use strict";

const API = "/apis/management.herdsman.dev/v1";
const REFRESH_MS = 5000;
const IN_USE_MS = 5 * 60 * 1000;
const PROBLEM_COOKIE = "__Host-herdsman-problem=";
const CSRF_COOKIE = "__Host-herdsman-csrf=";
const element = (id) => document.getElementById(id);
let session = null;
let timer = null;
let extendedAt = 0;

function say(text, bad = false) {
  element("message").textContent = text;
  element("message").classList.toggle("bad", bad);
}

async function call(method, path, body) {
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
  if (answer.ok) return content;
  if (answer.status === 401 && session) {
    end();
    throw new Error("Your session has ended. Sign in again.");
  }
  throw new Error(content.message || `The hub answered ${answer.status}.`);
}

function show(id) {
  for (const part of ["sign-in", "new-password", "clusters"]) element(part).hidden = part !== id;
  document.body.classList.toggle("signed-out", id !== "clusters");
  element("who").hidden = element("sign-out").hidden = id === "sign-in";
  const first = element(id).querySelector("input");
  if (first) first.focus();
}

function end() {
  session = null;
  clearTimeout(timer);
  for (const form of document.forms) form.reset();
  element("rows").replaceChildren();
  show("sign-in");
}

// A form's button is off while its request runs, so that it can't be sent twice.
function onSubmit(id, work) {
  element(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter || element(id).querySelector("button[type=submit]");
    button.disabled = true;
    say("");
    try {
      await work();
    } catch (error) {
      say(error.message, true);
      const secret = element(id).querySelector("input[type=password]");
      secret.focus();
      secret.select();
    } finally {
      button.disabled = false;
    }
  });
}

function row(cluster) {
  const status = cluster.status || {};
  const problem = (status.conditions || []).find((c) => c.type === "Connected" && c.status !== "True");
  const cells = [cluster.metadata.name, status.phase, status.kubernetesVersion, status.nodeCount, problem && problem.message];
  const line = document.createElement("tr");
  for (const value of cells) line.insertCell().textContent = value ?? "";
  line.cells[1].dataset.phase = status.phase || "Pending";
  if (status.nodeCount !== undefined) line.cells[3].dataset.label = status.nodeCount === 1 ? "node" : "nodes";
  return line;
}

async function refresh() {
  clearTimeout(timer);
  if (!session) return;
  try {
    const list = await call("GET", `${API}/clusters?limit=500`);
    element("rows").replaceChildren(...list.items.map(row));
    element("none").hidden = list.items.length > 0;
    element("table").hidden = list.items.length === 0;
    if (element("message").classList.contains("bad")) say("");
  } catch (error) {
    say(error.message, true);
  }
  if (session) timer = setTimeout(refresh, REFRESH_MS);
}

// Somebody is at the page: the session goes on. A page that is only looked at ends when its time is up.
async function inUse() {
  if (!session || Date.now() - extendedAt < IN_USE_MS) return;
  extendedAt = Date.now();
  try {
    await call("POST", "/v1/session");
  } catch (error) {
    say(error.message, true);
  }
}
for (const kind of ["keydown", "pointerdown"]) document.addEventListener(kind, inUse);

async function showTokens() {
  const list = await call("GET", `${API}/tokens?limit=500&fieldSelector=${encodeURIComponent(`spec.user=${session.user}`)}`);
  element("token-rows").replaceChildren(...list.items.map(tokenRow));
}

function when(text) {
  return text ? new Date(text).toLocaleString() : "";
}

const PURPOSES = { session: "Browser", login: "Command line", exec: "kubectl", kubeconfig: "Kubeconfig", api: "API token", federated: "Workload" };

function tokenRow(token) {
  const { spec, metadata } = token;
  const own = metadata.name === session.name;
  const cells = [
    (PURPOSES[spec.purpose] || spec.purpose) + (own ? " (this one)" : ""), spec.description, spec.clientAddress, when(metadata.creationTimestamp),
    when(spec.expiresAt),
  ];
  const line = document.createElement("tr");
  for (const value of cells) line.insertCell().textContent = value ?? "";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Revoke";
  button.setAttribute("aria-label", `Revoke ${cells[0]} ${spec.description || ""}`.trim());
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await call("DELETE", `${API}/tokens/${encodeURIComponent(metadata.name)}`);
      if (own) end();
      else await showTokens();
      say(own ? "You are signed out." : "It is revoked.");
    } catch (error) {
      button.disabled = false;
      say(error.message, true);
    }
  });
  line.insertCell().append(button);
  return line;
}

async function showProviders() {
  const { options } = await call("GET", "/v1/sign-in");
  const forms = options.filter((option) => option.flow === "password");
  element("provider").replaceChildren(...forms.map((option) => new Option(option.display_name, option.provider)));
  element("provider-row").hidden = forms.length < 2;
  const links = options.filter((option) => option.flow === "redirect").map((option) => {
    const link = document.createElement("a");
    link.className = "button";
    link.href = `/v1/sign-in/${encodeURIComponent(option.provider)}?return_to=${encodeURIComponent("/ui/")}`;
    link.textContent = `Sign in with ${option.display_name}`;
    return link;
  });
  element("redirects").replaceChildren(...links);
}

function enter() {
  element("how").textContent =
    `herdsman login ${location.origin} --user ${session.user}\nherdsman kubeconfig --merge\nkubectl --context herdsman get clusters`;
  extendedAt = Date.now();
  element("who").textContent = `Signed in as ${session.user}`;
  show("clusters");
  refresh();
  showTokens().catch((error) => say(error.message, true));
}

onSubmit("sign-in", async () => {
  const user = element("user").value.trim();
  const password = element("password").value;
  const provider = element("provider").value || "local";
  session = await call("POST", "/v1/login", { user, password, provider, description: "browser", session: true });
  element("who").textContent = `Signed in as ${session.user}`;
  if ((session.notices || []).length) say(session.notices.join(" "));
  if (session.must_change_password) {
    session.password = password;
    show("new-password");
  } else {
    enter();
  }
});

onSubmit("new-password", async () => {
  const chosen = element("chosen").value;
  if (chosen !== element("again").value) throw new Error("The two passwords differ.");
  await call("POST", "/v1/password", { user: session.user, current_password: session.password, new_password: chosen });
  delete session.password;
  element("new-password").reset();
  say("Your password is changed.");
  enter();
});

element("later").addEventListener("click", () => {
  delete session.password;
  enter();
});

element("sign-out").addEventListener("click", async () => {
  try {
    await call("POST", "/v1/logout");
    say("You are signed out.");
  } catch (error) {
    say(error.message, true);
  }
  end();
});

// A sign-in that failed on its way comes back with what to tell, which is shown once.
function tellProblem() {
  const found = document.cookie.split("; ").find((part) => part.startsWith(PROBLEM_COOKIE));
  if (!found) return;
  const problem = decodeURIComponent(found.slice(PROBLEM_COOKIE.length));
  document.cookie = `${PROBLEM_COOKIE}; Path=/; Secure; SameSite=Lax; Max-Age=0`;
  say(problem, true);
}

async function start() {
  try {
    await showProviders();
    session = await call("GET", "/v1/session");
    enter();
  } catch {
    session = null;
  }
}

show("sign-in");
if (document.cookie.includes(CSRF_COOKIE)) start();
else showProviders().catch((error) => say(error.message, true));
tellProblem();
