// The hub's page: sign in, see clusters, sign out. Its other parts lie beside it: `hub.js` asks, `life.js` watches the session's end, `tokens.js` and
// `account.js` fill their tables, `device.js` and `login.js` let machines in, `factor.js` sets up a second factor, `leave.js` signs out.
import { API, call, element, firstShown, hasProof, onSubmit, page, row, say, untilDone } from "/ui/hub.js";
import * as life from "/ui/life.js";
import { forgetNewToken, showTokens } from "/ui/tokens.js";
import { showAccount } from "/ui/account.js";
import { forgetDevice, showDevice } from "/ui/device.js";
import { forgetFactor, showFactor } from "/ui/factor.js";
import { tellLeft } from "/ui/leave.js";
import { forgetLogin, returnTo, showLogin } from "/ui/login.js";

const REFRESH_MS = 5000;
const PROBLEM_COOKIE = "__Host-herdsman-problem=";
let timer = null;
let failed = false;

function show(id) {
  for (const part of ["sign-in", "new-password", "clusters", "second-factor"]) element(part).hidden = part !== id;
  // An account at a provider has its second factor there.
  if (id === "clusters") element("second-factor").hidden = page.session.provider !== "local";
  document.body.classList.toggle("signed-out", id !== "clusters");
  element("who").hidden = element("sign-out").hidden = id === "sign-in";
  if (element(id) instanceof HTMLFormElement) firstShown(element(id), "input").focus();
}

function end() {
  page.session = null;
  failed = false;
  clearTimeout(timer);
  forgetNewToken();
  forgetDevice();
  forgetFactor();
  forgetLogin();
  for (const part of ["factor-device", "factor-codes"]) element(part).hidden = true;
  askForCode(false);
  life.end();
  for (const form of document.forms) form.reset();
  for (const rows of ["rows", "token-rows", "account-rows"]) element(rows).replaceChildren();
  show("sign-in");
}
page.ended = end;
page.enter = enter;

function askForCode(wanted) {
  element("code-row").hidden = !wanted;
  element("code").required = wanted;
  if (!wanted) element("code").value = "";
}

function clusterRow(cluster) {
  const status = cluster.status || {};
  const problem = (status.conditions || []).find((c) => c.type === "Connected" && c.status !== "True");
  const cells = [cluster.metadata.name, status.phase, status.kubernetesVersion, status.nodeCount, problem && problem.message];
  const line = row(cells);
  line.cells[1].dataset.phase = status.phase || "Pending";
  if (status.nodeCount !== undefined) line.cells[3].dataset.label = status.nodeCount === 1 ? "node" : "nodes";
  return line;
}

async function refresh() {
  clearTimeout(timer);
  if (!page.session) return;
  try {
    const list = await call("GET", `${API}/clusters?limit=500`);
    element("rows").replaceChildren(...list.items.map(clusterRow));
    element("none").hidden = list.items.length > 0;
    element("table").hidden = list.items.length === 0;
    // Its own complaint is over; what somebody else said stays.
    if (failed) say("");
    failed = false;
  } catch (error) {
    failed = Boolean(page.session);
    say(error.message, true);
  }
  if (page.session) timer = setTimeout(refresh, REFRESH_MS);
}

async function showProviders() {
  const { options } = await call("GET", "/v1/sign-in");
  const forms = options.filter((option) => option.flow === "password");
  element("provider").replaceChildren(...forms.map((option) => new Option(option.display_name, option.provider)));
  element("provider-row").hidden = forms.length < 2;
  element("redirects").replaceChildren(...options.filter((option) => option.flow === "redirect").map(redirect));
}

function redirect(option) {
  const link = document.createElement("a");
  link.className = "button";
  const aim = () => {
    link.href = `/v1/sign-in/${encodeURIComponent(option.provider)}?return_to=${encodeURIComponent(returnTo())}`;
  };
  aim();
  addEventListener("hashchange", aim);
  link.textContent = `Sign in with ${option.display_name}`;
  return link;
}

function enter() {
  element("who").textContent = `Signed in as ${page.session.user}`;
  if (page.session.must_change_password) {
    // After a reload nobody here knows the password that it was signed in with.
    element("current-row").hidden = page.session.password !== undefined;
    element("current").required = !element("current-row").hidden;
    show("new-password");
    return;
  }
  delete page.session.password;
  if (page.session.must_set_second_factor) {
    showFactor(false);
    show("second-factor");
    element("factor-password").focus();
    return;
  }
  element("how").textContent =
    `herdsman login ${location.origin}\nherdsman kubeconfig --merge\nkubectl --context herdsman get clusters`;
  life.begin();
  show("clusters");
  refresh();
  showDevice();
  showLogin();
  for (const fill of [showTokens, showAccount]) fill().catch((error) => say(error.message, true));
}

onSubmit("sign-in", async () => {
  const user = element("user").value.trim();
  const password = element("password").value;
  const provider = element("provider").value || "local";
  const code = element("code").value.trim();
  try {
    const asked = { user, password, provider, description: "browser", session: true };
    page.session = await call("POST", "/v1/login", code ? { ...asked, one_time_code: code } : asked);
  } catch (error) {
    if (error.reason === "SecondFactorNeeded") askForCode(true);
    if (!element("code-row").hidden) error.field = "#code";
    throw error;
  }
  askForCode(false);
  if ((page.session.notices || []).length) say(page.session.notices.join(" "));
  Object.assign(page.session, { password, provider });
  enter();
});

onSubmit("new-password", async () => {
  const chosen = element("chosen").value;
  if (chosen !== element("again").value) throw new Error("The two passwords differ.");
  const current = page.session.password ?? element("current").value;
  await call("POST", "/v1/password", { user: page.session.user, current_password: current, new_password: chosen });
  page.session.password = chosen;
  element("new-password").reset();
  await untilDone("must_change_password");
  say("Your password is changed.");
  enter();
});

// Another account may need no code.
for (const id of ["user", "provider"]) element(id).addEventListener("input", () => askForCode(false));

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
    page.session = await call("GET", "/v1/session");
    enter();
  } catch (error) {
    page.session = null;
    // What a sign-in on another page ended with is said already, and says more.
    if (!element("message").textContent) say(error.status === 401 ? "Your session has ended. Sign in again." : error.message, true);
  }
}

show("sign-in");
if (hasProof()) start();
else {
  tellLeft();
  showProviders().catch((error) => say(error.message, true));
}
tellProblem();
