// Sign-in, the forced choice of a password, and the clusters that one may see, over the same API that kubectl uses.
// The token lives in this page's memory alone: nothing is stored, a reload asks again. Text is only ever set as text.
"use strict";

const API = "/apis/management.herdsman.dev/v1";
const REFRESH_MS = 5000;
const element = (id) => document.getElementById(id);
let session = null;
let timer = null;

function say(text, bad = false) {
  element("message").textContent = text;
  element("message").classList.toggle("bad", bad);
}

async function call(method, path, body) {
  const headers = { Accept: "application/json" };
  if (session) headers.Authorization = `Bearer ${session.token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "omit", cache: "no-store" });
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
  if (answer.status === 401 && session) end();
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

function enter() {
  element("how").textContent =
    `herdsman login ${location.origin} --user ${session.user}\nherdsman kubeconfig --merge\nkubectl --context herdsman get clusters`;
  show("clusters");
  refresh();
}

onSubmit("sign-in", async () => {
  const user = element("user").value.trim();
  const password = element("password").value;
  session = await call("POST", "/v1/login", { user, password, description: "browser" });
  element("who").textContent = `Signed in as ${session.user}`;
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

show("sign-in");
