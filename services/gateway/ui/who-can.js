// Who can do what and why: the question stands in the address, so that it can be kept, sent and gone back to; the answer has the whole chain.
import { GROUP, element, list, onSubmit, page, row, say, when } from "/ui/hub.js";
import { review } from "/ui/rights.js";
import * as route from "/ui/route.js";
import { fill } from "/ui/table.js";
import { counted, part, plain, shown } from "/ui/text.js";

const WORDS = ["verb", "resource", "cluster", "namespace", "name", "project", "user"];
const MOST = 500;
const TOLD = 4;

function specOf(question) {
  const spec = Object.fromEntries(WORDS.map((word) => [word, question.get(word) || ""]).filter(([, value]) => value));
  if (spec.resource) {
    // As people write it: deployments.apps, pods/exec.
    const [plural, ...group] = spec.resource.split(".");
    const [first, ...rest] = group.join(".").split("/");
    spec.resource = rest.length ? `${plural}/${rest.join("/")}` : plural;
    spec.apiGroup = question.get("on") === "hub" ? GROUP : first;
  }
  if (spec.user && spec.user.includes(":")) {
    spec.principal = spec.user;
    delete spec.user;
  }
  return { ...spec, limit: MOST };
}

function asked(spec) {
  const of = spec.verb ? `can ${spec.verb} ${spec.resource || ""}${spec.apiGroup && spec.apiGroup !== GROUP ? `.${spec.apiGroup}` : ""}` : "has which role";
  const named = [
    spec.name && `named ${spec.name}`, spec.namespace && `in namespace ${spec.namespace}`, spec.cluster && `in cluster ${spec.cluster}`,
    spec.project && `of project ${spec.project}`,
  ].filter(Boolean);
  return `${spec.user || spec.principal || "Who"} ${of} ${named.join(" ")}`.trim();
}

function pathRow(found) {
  const rights = found.rights || [];
  const told = rights.slice(0, TOLD).join(", ") + (rights.length > TOLD ? ` and ${rights.length - TOLD} more` : "");
  const names = (found.onlyNames || []).length ? ` named ${found.onlyNames.join(", ")}` : "";
  const can = found.how ? `${found.how} (${told}${names})` : told + names || found.role;
  const chain = [...(found.group ? [`group ${found.group}`] : []), ...((found.inherits || []).length ? found.inherits : [found.role])];
  const why = part("ol", "chain", ...chain.map((step) => part("li", "", shown(step))), part("li", "quiet", "binding ", shown(found.binding)));
  return row([found.user || found.principal, can, found.where, why, when(found.notAfter) || "no end"], ["", "", "", "", "Until"]);
}

// An answer is of one moment: it is asked for anew when the person asks, and not by itself.
export async function show(mine) {
  const question = mine.question;
  for (const word of WORDS) element(`who-${word}`).value = question.get(word) || "";
  for (const one of document.getElementsByName("who-on")) one.checked = one.value === (question.get("on") || "clusters");
  element("who-answer").hidden = true;
  suggest(mine).catch((error) => route.isNow(mine) && say(error.message, true));
  if ([...question.keys()].length === 0) return;
  const spec = specOf(question);
  const status = await review(spec);
  if (!route.isNow(mine)) return;
  const paths = status.paths || [];
  element("who-asked").replaceChildren(shown(asked(spec)));
  fill(element("who-paths-rows"), paths.map((found, index) => ({ found, index })), ({ index }) => String(index), ({ found }) => pathRow(found), spec);
  element("who-paths").hidden = paths.length === 0;
  const told = status.everybody ? "Whoever is signed in can, without any binding." : paths.length ? `${counted(paths.length, "reason")}.` : "Nobody can, as far as you may see.";
  element("who-told").textContent = told;
  const notes = [
    ...(status.omitted ? [`${status.omitted} more were left out: herdsman access who-can … -o csv has them all`] : []),
    ...(status.incomplete ? ["you see only what you may see of bindings, groups and users; there may be more"] : []),
    ...(status.notes || []),
  ];
  element("who-notes").replaceChildren(...notes.map((note) => part("li", "", shown(note))));
  element("who-answer").hidden = false;
  element("who-asked").focus();
}

async function suggest(mine) {
  const known = await list("clusters", { cells: true });
  if (!route.isNow(mine)) return;
  element("who-clusters").replaceChildren(...known.items.map((one) => new Option("", plain(one.Name))));
}

function go(words) {
  const address = `#access/who-can?${new URLSearchParams(words)}`;
  // The same question again is asked again.
  if (address === location.hash) return show(route.current());
  location.hash = address;
  return null;
}

onSubmit("ask-who", async () => {
  const words = Object.fromEntries(WORDS.map((word) => [word, element(`who-${word}`).value.trim()]).filter(([, value]) => value));
  const on = element("ask-who").elements["who-on"].value;
  if (!words.verb && !words.resource && !words.user && !words.cluster && !words.project) {
    throw Object.assign(new Error("Say what: a verb and a resource, or a user, a cluster or a project."), { field: "#who-verb" });
  }
  await go({ ...(on === "hub" ? { on } : {}), ...words });
});

element("who-me").addEventListener("click", () => go({ user: page.session.user }));

export function forget() {
  element("who-paths-rows").replaceChildren();
  element("who-notes").replaceChildren();
  element("who-answer").hidden = true;
}
