// Roles for a while: what one may ask for and asked for, and what waits for one's decision or review.
import { API, call, element, list, made, page, path, row, say, when } from "/ui/hub.js";
import { ask } from "/ui/ask.js";
import { myIds } from "/ui/rights.js";
import * as route from "/ui/route.js";
import { button, fill, showEmpty } from "/ui/table.js";
import { counted, duration, part, plain, shown } from "/ui/text.js";
import * as whoCan from "/ui/who-can.js";

const REQUESTS = "accessrequests";
const SPANS = [900, 1800, 3600, 7200, 14400, 28800, 86400, 259200, 604800, 2592000];
const EVERYBODY = "*";
const NAMED = { anyCluster: "cluster", anyProject: "project" };
let pages = 1;
let roles = new Map();

function where(scope) {
  if (scope.cluster) return `cluster ${scope.cluster}`;
  if (scope.project) return `project ${scope.project}`;
  if (scope.anyCluster) return "any one cluster";
  if (scope.anyProject) return "any one project";
  return "everywhere";
}

function how({ spec }) {
  const approvals = counted(spec.approvals || 1, "approval");
  return spec.breakGlass ? "in an emergency: at once, with an alarm, and reviewed afterwards" : `after ${approvals}`;
}

function state({ spec, status = {} }) {
  const { phase = "Pending", missing = 0, until } = status;
  const of = (spec.decisions || []).map((one) => `${one.by}: ${one.verdict}${one.comment ? ` – ${one.comment}` : ""}`);
  const told = {
    Pending: `Pending: ${counted(missing, "approval")} missing`, Granted: `Granted until ${when(until)}`, Lapsed: "Lapsed: nobody decided in time",
    Ended: `Ended ${when(until)}`,
  };
  return [(told[phase] || phase) + (status.unreviewed ? ", to be reviewed" : ""), ...of.map((text) => part("div", "quiet", shown(text)))];
}

const COLOURS = { Granted: "Applied", Pending: "Pending", Denied: "Failed", Revoked: "Failed" };

function requestRow(cells, labels, request, buttons, stateAt = -1) {
  const line = row(cells, labels);
  if (stateAt >= 0) line.cells[stateAt].dataset.phase = COLOURS[(request.status || {}).phase || "Pending"] || "";
  line.insertCell().append(part("div", "row", ...buttons));
  return line;
}

const role = (name) => [shown(name), ...(roles.has(name) ? [part("div", "quiet", shown(roles.get(name).displayName))] : [])];

// ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function policyRow(policy) {
  const { spec, metadata } = policy;
  const cells = [spec.roles.join(", "), spec.scopes.map(where).join(", "), duration(spec.maxSeconds ?? 3600), how(policy), spec.description || metadata.name];
  const line = row(cells, ["", "", "At most", "", ""]);
  line.insertCell().append(button("ask", spec.breakGlass ? "Emergency…" : "Ask…", `by policy ${metadata.name}`, () => askBy(policy)));
  return line;
}

function askBy({ spec, metadata }) {
  const longest = spec.maxSeconds ?? 3600;
  const spans = SPANS.filter((seconds) => seconds < longest).concat(longest);
  const anywhere = spec.scopes.some((scope) => scope.anyCluster || scope.anyProject);
  const roleText = (name) => (roles.has(name) && roles.get(name).displayName ? `${name}: ${roles.get(name).displayName}` : name);
  ask({
    title: spec.breakGlass ? "An emergency" : "Ask for a role",
    text: spec.breakGlass
      ? "You get the role at once. An alarm is raised with what you write here, and somebody else looks at it afterwards."
      : "Those who decide read what you write here. The time runs from the last approval on.",
    facts: spec.description ? [["Policy", spec.description]] : [],
    fields: [
      { name: "role", label: "Role", options: spec.roles.map((name) => ({ value: name, text: roleText(name) })) },
      { name: "where", label: "Where", options: spec.scopes.map((scope, index) => ({ value: String(index), text: where(scope) })) },
      ...(anywhere ? [{ name: "named", label: "Name of the cluster or project", longest: 63, hint: "For “any one”." }] : []),
      { name: "span", label: "For how long", options: spans.map((seconds) => ({ value: String(seconds), text: duration(seconds) })) },
      { name: "reason", label: "Reason", required: true },
    ],
    confirm: spec.breakGlass ? "Take the role now" : "Ask",
    async work(given) {
      const scope = scopeOf(spec.scopes[Number(given.where)], given.named);
      const wanted = { role: given.role, scope, durationSeconds: Number(given.span), reason: given.reason, policy: metadata.name };
      if (spec.breakGlass) wanted.breakGlass = true;
      const random = [...crypto.getRandomValues(new Uint8Array(4))].map((one) => one.toString(16).padStart(2, "0")).join("");
      const asked = await call("POST", `${API}/${REQUESTS}`, made("AccessRequest", `${given.role.slice(0, 200)}-${random}`, wanted));
      const { phase, until, missing } = asked.status || {};
      say(phase === "Granted" ? `You have the role until ${when(until)}. An alarm was raised.` : `Asked: ${counted(missing, "approval")} missing.`);
      await route.refresh();
    },
  });
}

function scopeOf(scope, named) {
  for (const [any, kind] of Object.entries(NAMED)) {
    if (!scope[any]) continue;
    if (!named) throw Object.assign(new Error(`Give the name of the ${kind}.`), { field: "#ask-named" });
    return { [kind]: named };
  }
  return scope.cluster ? { cluster: scope.cluster } : scope.project ? { project: scope.project } : { global: true };
}

function mineRow(request) {
  const { spec, metadata, status = {} } = request;
  const cells = [role(spec.role), where(spec.scope), duration(spec.durationSeconds), state(request), spec.reason];
  const buttons = (status.phase || "Pending") === "Pending" ? [button("withdraw", "Take back…", `the request for ${spec.role}`, () => withdraw(request))] : [];
  return requestRow(cells, ["", "", "For", "", "Reason:"], { metadata, status }, buttons, 3);
}

function withdraw({ spec, metadata }) {
  ask({
    title: "Take a request back",
    facts: [["Role", spec.role], ["Where", where(spec.scope)], ["Reason", spec.reason]],
    confirm: "Take it back",
    async work() {
      const preconditions = { uid: metadata.uid };
      await call("DELETE", path(REQUESTS, metadata.name), { apiVersion: "v1", kind: "DeleteOptions", preconditions });
      say("The request is taken back.");
      await route.refresh();
    },
  });
}

// ── deciding ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function decideRow(request) {
  const { spec, metadata } = request;
  const cells = [spec.user, role(spec.role), where(spec.scope), duration(spec.durationSeconds), [shown(spec.reason), ...decided(request)]];
  return requestRow(cells, ["", "", "", "For", "Reason:"], request, verdicts(metadata.name, spec, ["Approve…", "Deny…"]));
}

function reviewRow(request) {
  const { spec, metadata } = request;
  const cells = [spec.user, role(spec.role), where(spec.scope), state(request), spec.reason];
  return requestRow(cells, ["", "", "", "", "Reason:"], request, verdicts(metadata.name, spec, ["It was right…", "It was wrong…"]), 3);
}

const decided = ({ spec }) => (spec.decisions || []).map((one) => part("div", "quiet", shown(`${one.by}: ${one.verdict} ${one.comment || ""}`)));

const verdicts = (name, spec, [yes, no]) => [
  button("approve", yes, `${spec.role} for ${spec.user}: ${spec.reason}`, () => decide(name, "approve")),
  button("deny", no, `${spec.role} for ${spec.user}: ${spec.reason}`, () => decide(name, "deny")),
];

// Decided is what is read: the request as it is now is shown, and written to in that very state.
async function decide(name, verdict) {
  const mine = route.current();
  let request;
  try {
    request = await call("GET", path(REQUESTS, name));
  } catch (error) {
    say(error.message, true);
    return;
  }
  if (!route.isNow(mine)) return;
  const { spec, metadata, status = {} } = request;
  const review = Boolean(status.unreviewed);
  const yes = verdict === "approve";
  const texts = review
    ? yes ? ["The emergency was right", "The review is closed; the role ends at its time."] : ["The emergency was wrong", "The role is taken away at once, if it is still there."]
    : yes ? ["Approve a request", "Approving is giving: you must hold the role there yourself, for as long."] : ["Deny a request", ""];
  ask({
    title: texts[0],
    text: texts[1],
    facts: [
      ["Who asks", spec.user], ["Role", spec.role], ["What it gives", (roles.get(spec.role) || {}).description || "not known here"], ["Where", where(spec.scope)],
      ["For how long", duration(spec.durationSeconds)], ["Reason", spec.reason], ["Asked", when(metadata.creationTimestamp)],
      ...(spec.decisions || []).map((one) => ["Decided", `${one.by}: ${one.verdict} ${one.comment || ""}`]),
    ],
    fields: [{ name: "comment", label: "Comment, which the one who asks reads" }],
    confirm: review ? "Close the review" : yes ? "Approve" : "Deny",
    async work({ comment }) {
      const decisions = [...(spec.decisions || []), { verdict, comment }];
      const after = await call("PATCH", path(REQUESTS, name), { metadata: { resourceVersion: metadata.resourceVersion }, spec: { decisions } });
      const { phase, until, missing } = after.status || {};
      if (review) say("The review is closed.");
      else if (!yes) say("It is denied.");
      else say(phase === "Granted" ? `${plain(spec.user)} has the role until ${when(until)}.` : `Approved: ${counted(missing, "approval")} more to come.`);
      await route.refresh();
    },
  });
}

// ── filling ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// Whether this person is one of those who decide; that nobody decides on their own wish, or twice, is the hub's rule.
function isMine({ spec, status = {} }, ids) {
  const own = spec.user === page.session.user;
  const again = !status.unreviewed && (spec.decisions || []).some((one) => one.by === page.session.user);
  return !own && !again && (status.approvers || []).some((id) => ids.includes(id));
}

async function refresh(mine) {
  const user = page.session.user;
  const [ids, policies, own, pending, unreviewed] = await Promise.all([
    myIds(), list("accesspolicies", { pages: Infinity }), list(REQUESTS, { fields: `spec.user=${user}`, pages }),
    list(REQUESTS, { fields: "status.phase=Pending", pages: Infinity }), list(REQUESTS, { fields: "status.unreviewed=true", pages: Infinity }),
  ]);
  if (!route.isNow(mine)) return;
  const open = policies.items.filter(({ spec }) => spec.requesters.some((id) => id === EVERYBODY || ids.includes(id)));
  const newest = own.items.sort((one, other) => other.metadata.creationTimestamp.localeCompare(one.metadata.creationTimestamp));
  const named = [...roles.keys()].length;
  const uid = (one) => one.metadata.uid;
  fill(element("policies-rows"), open, uid, policyRow, named);
  showEmpty(element("policies"), element("no-policies"), open.length === 0);
  fill(element("mine-rows"), newest, uid, mineRow, named);
  showEmpty(element("mine"), element("no-mine"), newest.length === 0);
  element("more-requests").hidden = !own.more;
  for (const [id, make, items] of [["decide", decideRow, pending.items], ["review", reviewRow, unreviewed.items]]) {
    const wanted = items.filter((request) => isMine(request, ids));
    fill(element(`${id}-rows`), wanted, uid, make, named);
    element(id).hidden = element(`${id}-part`).hidden = wanted.length === 0;
  }
}

element("more-requests").addEventListener("click", () => {
  pages += 1;
  route.refresh();
});

const isQuestion = ({ words }) => words[0] === "who-can";

route.add("access", {
  pick: (mine) => (isQuestion(mine) ? "who-can" : "access"),
  async show(mine) {
    if (isQuestion(mine)) return whoCan.show(mine);
    const known = await list("roletemplates", { pages: Infinity });
    if (!route.isNow(mine)) return;
    roles = new Map(known.items.map((one) => [one.metadata.name, one.spec]));
    return refresh(mine);
  },
  // An answer is of one moment: it is not asked for again by itself.
  refresh: (mine) => (isQuestion(mine) ? null : refresh(mine)),
  forget() {
    pages = 1;
    roles = new Map();
    whoCan.forget();
    for (const id of ["policies", "mine", "decide", "review"]) element(`${id}-rows`).replaceChildren();
  },
});
