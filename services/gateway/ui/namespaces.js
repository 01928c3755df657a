// A project's namespaces: made, brought in, moved to another project, taken out. The hub says who may; what surely fails is not offered.
import { call, change, element, list, onSubmit, say } from "/ui/hub.js";
import { ask } from "/ui/ask.js";
import { may } from "/ui/rights.js";
import * as route from "/ui/route.js";
import { button, setOptions } from "/ui/table.js";
import { plain } from "/ui/text.js";

const MOST_ASKED = 50;
const owned = (project) => `/v1/projects/${encodeURIComponent(project)}/namespaces`;
const keyOf = (entry) => `${entry.cluster}/${entry.namespace}`;

// What may be offered in this project. Bringing in, moving and taking out need a right on the cluster, too, unless the project's policies are one's own.
export async function rights(project) {
  const { name } = project.metadata;
  const [create, update, edit, policies] = await Promise.all([
    may("create", "projects/namespaces", name), may("update", "projects/namespaces", name), may("update", "projects", name), may("update", "projects/policies", name),
  ]);
  const known = [...new Set((project.spec.namespaces || []).map((entry) => entry.cluster))];
  const mine = new Set(await updatable(known));
  const others = (edit && update) || create ? (await list("clusters", { cells: true })).items.map((one) => one.Name).filter((name) => !known.includes(name)) : [];
  const beyond = await updatable(others);
  return {
    create: create && edit ? [...known, ...beyond] : [],
    bring: update && edit ? [...mine, ...beyond] : [],
    remove: edit ? (policies ? known : [...mine]) : [],
    // The cluster has to be updated for the other project, whatever this one's policies are.
    move: edit ? [...mine] : [],
  };
}

// Of many clusters only that some may be updated is asked, and the hub says which when it is tried.
async function updatable(clusters) {
  if (clusters.length === 0 || (await may("update", "clusters"))) return clusters;
  if (clusters.length > MOST_ASKED) return clusters;
  const allowed = await Promise.all(clusters.map((name) => may("update", "clusters", name)));
  return clusters.filter((_, index) => allowed[index]);
}

const options = (clusters) => clusters.map((name) => ({ value: name, text: name }));

export function offer(allowed) {
  for (const [kind, clusters] of [["create", allowed.create], ["bring", allowed.bring]]) {
    setOptions(element(`${kind}-cluster`), options(clusters));
    element(`${kind}-part`).hidden = clusters.length === 0;
  }
}

export function hide() {
  for (const kind of ["create", "bring"]) {
    element(`${kind}-namespace`).reset();
    element(`${kind}-part`).hidden = true;
    element(`${kind}-part`).open = false;
    setOptions(element(`${kind}-cluster`), []);
  }
}

export function buttons(project, entry, allowed) {
  const of = `namespace ${keyOf(entry)}`;
  const made = [];
  if (allowed.move.includes(entry.cluster)) made.push(button("move", "Move…", of, () => move(project, entry)));
  if (allowed.remove.includes(entry.cluster)) made.push(button("remove", "Take out…", of, () => remove(project, entry)));
  return made;
}

const place = ({ cluster, namespace }) => ({ cluster, namespace });

async function move(project, entry) {
  const known = (await list("projects", { cells: true })).items.map((one) => one.Name);
  ask({
    title: "Move a namespace to another project",
    text: "It then has the rights, quota and rules of that project, and nothing of this one.",
    facts: [["Cluster", entry.cluster], ["Namespace", entry.namespace], ["Now in", project]],
    fields: [{ name: "target", label: "To the project", required: true, longest: 63, suggested: known.filter((name) => name !== project) }],
    confirm: "Move it",
    async work({ target }) {
      await call("POST", `${owned(target)}/move`, { ...place(entry), source: project });
      say(`Namespace ${keyOf(entry)} is now in project ${plain(target)}.`);
      await route.refresh();
    },
  });
}

function remove(project, entry) {
  ask({
    title: "Take a namespace out of the project",
    text: "The namespace stays, with all that is in it. The project's members lose their rights there, and its quota and rules end.",
    facts: [["Cluster", entry.cluster], ["Namespace", entry.namespace], ["Project", project]],
    confirm: "Take it out",
    async work() {
      await change("projects", project, ({ spec }) => {
        const kept = (spec.namespaces || []).filter((one) => keyOf(one) !== keyOf(entry));
        return kept.length === (spec.namespaces || []).length ? null : { spec: { namespaces: kept } };
      });
      say(`Namespace ${keyOf(entry)} is in no project any more.`);
      await route.refresh();
    },
  });
}

const shownProject = () => route.current().words[0];

onSubmit("create-namespace", async () => {
  const mine = route.current();
  const project = shownProject();
  const asked = { cluster: element("create-cluster").value, namespace: element("create-name").value.trim() };
  say(`Cluster ${asked.cluster} is asked for namespace ${plain(asked.namespace)}. This takes up to ten seconds.`);
  let made;
  try {
    made = await call("POST", owned(project), asked);
  } catch (error) {
    throw Object.assign(error, { field: "#create-name" });
  }
  if (!route.isNow(mine)) return;
  element("create-name").value = "";
  say(
    made.uid
      ? `Namespace ${keyOf(asked)} is made.`
      : `Namespace ${keyOf(asked)} is asked for and not there yet: ${plain(made.pending)}. The list says when it is.`,
  );
  element("create-name").focus();
  await route.refresh();
});

onSubmit("bring-namespace", async () => {
  const mine = route.current();
  const added = { cluster: element("bring-cluster").value, namespace: element("bring-name").value.trim() };
  let isNew = true;
  try {
    await change("projects", shownProject(), ({ spec }) => {
      const known = spec.namespaces || [];
      isNew = !known.some((entry) => keyOf(entry) === keyOf(added));
      return isNew ? { spec: { namespaces: [...known, added] } } : null;
    });
  } catch (error) {
    throw Object.assign(error, { field: "#bring-name" });
  }
  if (!route.isNow(mine)) return;
  element("bring-name").value = "";
  say(`Namespace ${keyOf(added)} is in the project${isNew ? "" : " already"}.`);
  element("bring-name").focus();
  await route.refresh();
});
