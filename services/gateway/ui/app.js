// The hub's page: signing in and out, and what stands around its parts. `hub.js` asks, `route.js` shows one part after another (`clusters.js`,
// `projects.js`, `access.js`, `account.js`), `life.js` watches the session's end, `login.js` lets a command line in, `leave.js` signs out.
import { call, element, firstShown, hasProof, onSubmit, page, say, untilDone } from "/ui/hub.js";
import * as life from "/ui/life.js";
import * as route from "/ui/route.js";
import { forgetRights, may } from "/ui/rights.js";
import { showFactor } from "/ui/factor.js";
import { tellLeft } from "/ui/leave.js";
import { forgetLogin, returnTo, showLogin } from "/ui/login.js";
import { shown } from "/ui/text.js";
import "/ui/account.js";
import "/ui/clusters.js";
import "/ui/projects.js";
import "/ui/access.js";

const PROBLEM_COOKIE = "__Host-herdsman-problem=";

// One of the forms before anything else, or ("pages") the parts themselves.
function show(id) {
  for (const part of ["sign-in", "new-password", "second-factor"]) element(part).hidden = part !== id;
  document.body.classList.toggle("signed-out", id !== "pages");
  element("who").hidden = element("sign-out").hidden = id === "sign-in";
  if (element(id) instanceof HTMLFormElement) firstShown(element(id), "input").focus();
}

function end() {
  page.session = null;
  route.end();
  element("nav-projects").hidden = true;
  forgetLogin();
  forgetRights();
  askForCode(false);
  life.end();
  for (const form of document.forms) form.reset();
  show("sign-in");
}
page.ended = end;
page.enter = enter;

function askForCode(wanted) {
  element("code-row").hidden = !wanted;
  element("code").required = wanted;
  if (!wanted) element("code").value = "";
}

// Somebody may have been let in meanwhile.
addEventListener("hashchange", showParts);

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
  element("who").replaceChildren("Signed in as ", shown(page.session.user));
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
  show("pages");
  route.begin();
  showLogin();
  showParts();
}

// A part in which there is nothing for this person is not offered.
async function showParts() {
  const mine = page.session;
  if (!mine) return;
  try {
    const allowed = (await may("list", "projects")) || (await may("list", "projecttemplates"));
    if (mine === page.session) element("nav-projects").hidden = !allowed;
  } catch (error) {
    if (page.session) say(error.message, true);
  }
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
