// Who is in a project: seen, let in, and their roles taken away. A binding's name is made of its words, as the command line makes it, so that giving the
// same twice is one binding.
import { API, call, element, list, made, onSubmit, page, path, row, say, when } from "/ui/hub.js";
import { ask } from "/ui/ask.js";
import { may, mayIn } from "/ui/rights.js";
import * as route from "/ui/route.js";
import { button, fill, setOptions, showEmpty } from "/ui/table.js";
import { part, plain, shown } from "/ui/text.js";

const BINDINGS = "roletemplatebindings";
const PAGES = 10;
const SEARCH_MS = 250;
const FOUND = 20;
const SPANS = [["", "Until it is taken away"], ["3600", "1 hour"], ["28800", "8 hours"], ["86400", "1 day"], ["604800", "7 days"], ["2592000", "30 days"]];
let roles = new Map();
let groups = new Map();
let removable = false;
let found = [];
let timer = null;

export async function show(mine) {
  const project = mine.words[0];
  const [grants, sees] = await Promise.all([mayIn(project, "create", BINDINGS), mayIn(project, "list", BINDINGS)]);
  const [known, named] = await Promise.all([list("roletemplates", { fields: "spec.scope=project", pages: Infinity }), groupNames()]);
  if (!route.isNow(mine)) return;
  roles = new Map(known.items.filter((role) => !role.spec.locked).map((role) => [role.metadata.name, role.spec]));
  groups = named;
  setOptions(element("grant-role"), [...roles].map(([name, spec]) => ({ value: name, text: spec.displayName ? `${spec.displayName} (${name})` : name })));
  setOptions(element("grant-for"), SPANS.map(([value, text]) => ({ value, text })));
  tellRole();
  element("grant-part").hidden = !grants;
  element("members-some").hidden = sees;
}

// Groups of the hub's own have ids that say nothing to a person.
async function groupNames() {
  if (!(await may("list", "groups"))) return new Map();
  const known = await list("groups", { pages: PAGES });
  return new Map(known.items.map((group) => [(group.status || {}).principalId, group.metadata.name]));
}

export async function refresh(mine) {
  const project = mine.words[0];
  const known = await list(BINDINGS, { fields: `spec.scope.project=${project}`, pages: PAGES });
  if (!route.isNow(mine)) return;
  const items = known.items.sort((one, other) => holder(one.spec).localeCompare(holder(other.spec)) || one.spec.role.localeCompare(other.spec.role));
  removable = items.length > 0 && (await may("delete", BINDINGS, items[0].metadata.name));
  if (!route.isNow(mine)) return;
  fill(element("members-rows"), items, (binding) => binding.metadata.name, memberRow, [removable, [...groups]]);
  showEmpty(element("members"), element("no-members"), items.length === 0);
}

function holder(spec) {
  if (spec.user) return spec.user;
  const group = groups.get(spec.principal);
  return group ? `group ${group}` : spec.principal;
}

function memberRow(binding) {
  const { spec, metadata } = binding;
  const over = spec.notAfter && Date.parse(spec.notAfter) <= Date.now() + page.aheadMs;
  const until = spec.notAfter ? `${when(spec.notAfter)}${over ? " (over)" : ""}` : "no end";
  const line = row([holder(spec), spec.role, until, spec.reason], ["", "", "Until", ""]);
  const cell = line.insertCell();
  if (removable) cell.append(button("revoke", "Take away…", `${spec.role} of ${holder(spec)}`, () => revoke(metadata, spec)));
  return line;
}

function revoke(metadata, spec) {
  const own = spec.user === page.session.user;
  ask({
    title: own ? "Take a role away from yourself" : "Take a role away",
    text: "It counts from the next call on, and ends open streams.",
    facts: [["Who", holder(spec)], ["Role", spec.role], ["Project", spec.scope.project]],
    confirm: "Take it away",
    async work() {
      // That very binding: one that was made anew under its name meanwhile is somebody's decision.
      const preconditions = { uid: metadata.uid };
      await call("DELETE", path(BINDINGS, metadata.name), { apiVersion: "v1", kind: "DeleteOptions", preconditions });
      say(`${plain(holder(spec))} no longer has the role ${plain(spec.role)}.`);
      await route.refresh();
    },
  });
}

// ── letting somebody in ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function tellRole() {
  element("grant-role-about").replaceChildren(shown((roles.get(element("grant-role").value) || {}).description));
}
element("grant-role").addEventListener("change", tellRole);

element("grant-search").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, SEARCH_MS);
});

async function search() {
  const mine = route.current();
  const text = element("grant-search").value.trim();
  if (!text) {
    forgetFound("Type a part of the name.");
    return;
  }
  try {
    const answer = await call("GET", `/v1/principals?${new URLSearchParams({ text, limit: FOUND })}`);
    if (!route.isNow(mine) || element("grant-search").value.trim() !== text) return;
    showFound(answer);
  } catch (error) {
    if (route.isNow(mine)) forgetFound(error.message);
  }
}

function forgetFound(text) {
  found = [];
  element("grant-choices").replaceChildren();
  element("grant-found").hidden = true;
  element("grant-told").replaceChildren(shown(text));
}

function showFound({ principals = [], notices = [] }) {
  found = principals;
  element("grant-choices").replaceChildren(...found.map(choice));
  element("grant-found").hidden = found.length === 0;
  const told = found.length ? `${found.length} found.` : "Nobody of this name.";
  element("grant-told").replaceChildren(shown([told, ...notices].join(" ")));
}

function choice(one, index) {
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: "grant-who", value: String(index), checked: found.length === 1 });
  const words = [one.display_name, one.email, one.provider === "local" ? "" : one.provider].filter(Boolean).join(", ");
  return part("label", "tick", input, ` ${one.kind} `, part("strong", "", shown(one.name)), words ? part("span", "quiet", " (", shown(words), ")") : "");
}

onSubmit("grant", async () => {
  const mine = route.current();
  const picked = element("grant-choices").querySelector("input:checked");
  const who = picked && found[Number(picked.value)];
  if (!who) throw Object.assign(new Error("Say who: search, and choose one of those that are found."), { field: picked ? "" : "#grant-search" });
  const project = mine.words[0];
  const role = element("grant-role").value;
  const of = who.provider === "local" && who.kind === "user" ? { user: who.name } : { principal: who.principal_id };
  const spec = { ...of, role, scope: { project } };
  const lasts = Number(element("grant-for").value);
  if (lasts) spec.notAfter = `${new Date(Date.now() + page.aheadMs + lasts * 1000).toISOString().slice(0, 19)}Z`;
  const reason = element("grant-reason").value.trim();
  if (reason) spec.reason = reason;
  const isNew = await ensure(await bindingName(of, role, project), spec);
  if (!route.isNow(mine)) return;
  element("grant").reset();
  forgetFound("Type a part of the name.");
  tellRole();
  say(isNew ? `${plain(who.name)} has the role ${role} now.` : `${plain(who.name)} has the role ${role} already.`);
  element("grant-search").focus();
  await route.refresh();
});

async function bindingName(of, role, project) {
  const [kind, id] = Object.entries(of)[0];
  const words = new TextEncoder().encode([kind, id, role, "project", project].join("\n"));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", words));
  const digits = [...digest.slice(0, 8)].map((one) => one.toString(16).padStart(2, "0")).join("");
  return `${role.slice(0, 200)}-${digits}`;
}

// Makes the binding, or makes the one of the same words say this. Whether anything changed.
async function ensure(name, spec) {
  try {
    await call("POST", `${API}/${BINDINGS}`, made("RoleTemplateBinding", name, spec));
    return true;
  } catch (error) {
    if (error.reason !== "AlreadyExists") throw error;
  }
  const before = await call("GET", path(BINDINGS, name));
  // What the words mean today: the user or project may have been deleted and made again since, and then is another one.
  const meant = await call("POST", `${API}/${BINDINGS}?dryRun=All`, made("RoleTemplateBinding", `${name}-rehearsal`, spec));
  if (before.spec.principal !== meant.spec.principal || before.spec.scope.projectUid !== meant.spec.scope.projectUid) {
    const preconditions = { uid: before.metadata.uid };
    await call("DELETE", path(BINDINGS, name), { apiVersion: "v1", kind: "DeleteOptions", preconditions });
    await call("POST", `${API}/${BINDINGS}`, made("RoleTemplateBinding", name, spec));
    return true;
  }
  if ((before.spec.notAfter || "") === (spec.notAfter || "") && (!spec.reason || spec.reason === before.spec.reason)) return false;
  const metadata = { resourceVersion: before.metadata.resourceVersion };
  await call("PATCH", path(BINDINGS, name), { metadata, spec: { notAfter: spec.notAfter || null, ...(spec.reason ? { reason: spec.reason } : {}) } });
  return true;
}

export function hide() {
  clearTimeout(timer);
  element("grant").reset();
  forgetFound("Type a part of the name.");
  [roles, groups, removable] = [new Map(), new Map(), false];
  element("members-rows").replaceChildren();
  for (const id of ["grant-part", "members-some", "no-members", "members"]) element(id).hidden = true;
  element("grant-part").open = false;
}
