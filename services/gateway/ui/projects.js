// The projects that the person may see, and making one: from a template, or a blank one.
import { API, call, element, list, made, onSubmit, row } from "/ui/hub.js";
import * as details from "/ui/project.js";
import { may, untilMay } from "/ui/rights.js";
import * as route from "/ui/route.js";
import { fill, setOptions, showEmpty } from "/ui/table.js";
import { counted, part, plain, shown, useOf } from "/ui/text.js";

const BLANK = "blank";
const MEMBERS_MS = 60 * 1000;
const MEMBER_PAGES = 4;
const TOLD = 3;
// How the hub's tables say that there is nothing, as kubectl's do.
const NONE = "<none>";
const USED = /^(\S+) ([^/]+)\/(.+)$/;
let pages = 1;
let templates = [];
let members = { counts: new Map(), cut: false, at: -Infinity };

function projectRow(project) {
  const name = project.Name;
  const display = project["Display Name"] === NONE ? "" : project["Display Name"];
  const link = part("a", "", shown(display || name));
  link.href = route.to("projects", name);
  const title = display ? [link, part("div", "quiet", shown(name))] : [link];
  const count = members.counts.get(name) || 0;
  const seen = members.at === -Infinity ? "" : `${members.cut ? "at least " : ""}${count}`;
  const [done, all] = (project.Applied || "0/0").split("/");
  const applied = all === "0" ? "in no cluster" : `${project.Status}: ${done} of ${counted(Number(all), "cluster")} ${done === "1" ? "holds" : "hold"} what it says`;
  const why = project.Status === "Applied" || all === "0" ? [] : [part("div", "quiet", shown(project.Message))];
  const uses = (project.Used || "").split(", ").map((text) => USED.exec(text)).filter(Boolean);
  const told = uses.slice(0, TOLD).map(([, resource, used, limit]) => useOf(resource, used === "?" ? undefined : used, limit));
  if (uses.length > TOLD) told.push(part("div", "quiet", `and ${uses.length - TOLD} more`));
  const line = row([title, project.Namespaces, seen, [applied, ...why], told.length ? told : "no quota"], ["", "Namespaces:", "Members that you see:", "", ""]);
  line.cells[3].dataset.phase = all === "0" ? "" : project.Status;
  return line;
}

async function countMembers(mine) {
  if (performance.now() - members.at < MEMBERS_MS) return;
  const found = await list("roletemplatebindings", { fields: "spec.scope.project!=", pages: MEMBER_PAGES });
  if (!route.isNow(mine)) return;
  const who = new Map();
  for (const { spec } of found.items) who.set(spec.scope.project, (who.get(spec.scope.project) || new Set()).add(spec.principal));
  members = { counts: new Map([...who].map(([name, ids]) => [name, ids.size])), cut: found.more, at: performance.now() };
}

async function refresh(mine) {
  if (!(await may("list", "projects"))) {
    showEmpty(element("project-list"), element("no-projects"), true);
    return;
  }
  const [found] = await Promise.all([list("projects", { pages, cells: true }), countMembers(mine)]);
  if (!route.isNow(mine)) return;
  // Not the age, with which every line would be another one each time.
  const items = found.items.map(({ Age, ...rest }) => rest);
  fill(element("project-list-rows"), items, (project) => project.Name, projectRow, [...members.counts, members.cut]);
  showEmpty(element("project-list"), element("no-projects"), items.length === 0);
  element("more-projects").hidden = !found.more;
}

// What this person may make a project from; none: it is not offered.
async function showMake(mine) {
  const [blank, sees] = await Promise.all([may("create", "projects"), may("list", "projecttemplates")]);
  const found = sees ? (await list("projecttemplates", { pages: Infinity })).items : [];
  const usable = await Promise.all(found.map((template) => may("create", "projecttemplates/projects", template.metadata.name)));
  if (!route.isNow(mine)) return;
  templates = found.filter((_, index) => usable[index]);
  const options = templates.map(({ metadata, spec }) => ({ value: `of ${metadata.name}`, text: spec.displayName || metadata.name }));
  if (blank) options.push({ value: BLANK, text: "Nothing: a blank project without a limit" });
  setOptions(element("make-from"), options);
  element("make-part").hidden = options.length === 0;
  tellTemplate();
}

const chosen = () => templates.find((template) => `of ${template.metadata.name}` === element("make-from").value);

function tellTemplate() {
  const template = chosen();
  const { description = "", clusters = [], quota = {}, maxPerPerson = 1 } = template ? template.spec : {};
  const facts = template
    ? [
        description,
        clusters.length ? `a namespace of its name in ${clusters.join(", ")}` : "no namespace to begin with",
        ...Object.entries(quota).map(([resource, most]) => `${resource} ${most}`),
        `at most ${counted(maxPerPerson, "project")} a person`,
      ]
    : [];
  element("make-about").replaceChildren(shown(facts.filter(Boolean).join("; ")));
}
element("make-from").addEventListener("change", tellTemplate);

onSubmit("make-project", async () => {
  const mine = route.current();
  const name = element("make-name").value.trim();
  const words = Object.fromEntries(
    [["displayName", element("make-display").value.trim()], ["description", element("make-description").value.trim()]].filter(([, text]) => text),
  );
  const template = chosen();
  try {
    if (template) await call("POST", `/v1/project-templates/${encodeURIComponent(template.metadata.name)}/projects`, { name, ...words });
    else await call("POST", `${API}/projects`, made("Project", name, words));
  } catch (error) {
    throw Object.assign(error, { field: "#make-name" });
  }
  await untilMay("get", "projects", name);
  if (!route.isNow(mine)) return;
  element("make-project").reset();
  tellTemplate();
  route.leaveFor(route.to("projects", name), `Project ${plain(name)} is made.`);
});

element("more-projects").addEventListener("click", () => {
  pages += 1;
  route.refresh();
});

route.add("projects", {
  pick: ({ words }) => (words.length ? "project" : "projects"),
  async show(mine) {
    if (mine.words.length) {
      await details.show(mine);
      return;
    }
    await refresh(mine);
    await showMake(mine);
  },
  refresh: (mine) => (mine.words.length ? details.refresh(mine) : refresh(mine)),
  hide: () => details.hide(),
  forget() {
    pages = 1;
    templates = [];
    members = { counts: new Map(), cut: false, at: -Infinity };
    element("project-list-rows").replaceChildren();
    element("make-from").replaceChildren();
    details.forget();
  },
});
