// One project: what of its quota is used, its namespaces, and how far its clusters are. `namespaces.js` changes them, `members.js` says who is in it.
import { call, element, path, row, when } from "/ui/hub.js";
import * as members from "/ui/members.js";
import * as namespaces from "/ui/namespaces.js";
import * as route from "/ui/route.js";
import { fill, showEmpty } from "/ui/table.js";
import { part, shown, useOf } from "/ui/text.js";

const FIRST_ROWS = 200;
let whole = false;
const NOTHING = { create: [], bring: [], remove: [], move: [] };
let may = NOTHING;
let askedFor = null;

function clusterRow(cluster) {
  const line = row([cluster.name, cluster.state, when(cluster.since), cluster.message], ["", "", "Since", ""]);
  line.cells[1].dataset.phase = cluster.state;
  return line;
}

// Whether it is there is the cluster's word; what it waits for is what the hub says of the cluster.
function there(entry, seen, cluster) {
  if (seen && seen.uid) return ["there"];
  const absent = !seen ? "unknown" : entry.create ? "not there yet" : "not there";
  if (cluster && cluster.state !== "Applied") {
    return [`${absent}: ${cluster.state} since ${when(cluster.since)}`, part("div", "quiet", shown(cluster.message))];
  }
  return [absent];
}

function namespaceRow({ entry, seen, cluster, project }) {
  const share = entry.share || {};
  const uses = Object.entries(share).map(([resource, limit]) => {
    const line = useOf(resource, ((seen || {}).used || {})[resource], limit);
    if ((entry.equalShare || []).includes(resource)) line.append(part("span", "quiet", " an equal part"));
    return line;
  });
  const cells = [entry.cluster, entry.namespace, there(entry, seen, cluster), uses.length ? uses : "no limit"];
  const line = row(cells, ["Cluster", "", "", ""]);
  line.cells[2].dataset.phase = seen && seen.uid ? "Applied" : cluster && cluster.state === "Failed" ? "Failed" : "Pending";
  line.insertCell().append(part("div", "row", ...namespaces.buttons(project, entry, may)));
  return line;
}

export const keyOf = (entry) => `${entry.cluster}/${entry.namespace}`;

function lay(project) {
  const { spec = {}, status = {}, metadata } = project;
  element("project-title").replaceChildren("Project ", shown(spec.displayName || metadata.name));
  element("project-about").replaceChildren(...about(project));
  const quota = Object.entries(spec.quota || {}).sort();
  const uses = quota.map(([resource, limit]) => useOf(resource, (status.used || {})[resource], limit));
  element("quota-use").replaceChildren(...(uses.length ? uses : ["It has no limit."]));
  const entries = spec.namespaces || [];
  const seen = new Map((status.namespaces || []).map((one) => [keyOf(one), one]));
  const clusters = new Map((status.clusters || []).map((one) => [one.name, one]));
  const items = entries.slice(0, whole ? undefined : FIRST_ROWS).map((entry) => ({
    entry, seen: seen.get(keyOf(entry)), cluster: clusters.get(entry.cluster), project: metadata.name,
  }));
  fill(element("namespaces-rows"), items, ({ entry }) => keyOf(entry), namespaceRow, may);
  element("more-namespaces").hidden = items.length === entries.length;
  element("more-namespaces").textContent = `Show all ${entries.length} namespaces`;
  showEmpty(element("namespaces"), element("no-namespaces"), entries.length === 0);
  element("no-namespaces-do").hidden = !(may.create.length || may.bring.length);
  fill(element("project-clusters-rows"), status.clusters || [], (one) => one.name, clusterRow);
  showEmpty(element("project-clusters"), element("no-project-clusters"), !(status.clusters || []).length);
}

function about({ spec = {}, metadata }) {
  const facts = [
    spec.displayName && `name ${metadata.name}`,
    spec.isolated && "its pods are reached from its own namespaces alone",
    spec.podSecurity && `pod security ${spec.podSecurity}`,
  ].filter(Boolean);
  const told = [spec.description ? shown(spec.description) : "", part("span", "quiet", facts.join("; "))];
  return spec.description && facts.length ? [told[0], part("br", ""), told[1]] : told;
}

async function read(mine) {
  try {
    return await call("GET", path("projects", mine.words[0]));
  } catch (error) {
    if (error.status !== 404 && error.status !== 403) throw error;
    return null;
  }
}

// What may be done depends on which clusters it is in.
async function askRights(mine, project) {
  const clusters = [...new Set((project.spec.namespaces || []).map((entry) => entry.cluster))].sort().join(" ");
  if (askedFor === clusters) return;
  const allowed = await namespaces.rights(project);
  if (!route.isNow(mine)) return;
  [may, askedFor] = [allowed, clusters];
  namespaces.offer(may);
  lay(project);
}

export async function refresh(mine) {
  const project = await read(mine);
  if (!route.isNow(mine)) return;
  element("project-gone").hidden = Boolean(project);
  element("project-parts").hidden = !project;
  if (!project) return;
  lay(project);
  await Promise.all([askRights(mine, project), members.refresh(mine)]);
}

export async function show(mine) {
  // Nothing of the one that was shown before stands under this one's name.
  hide();
  element("project-title").replaceChildren("Project ", shown(mine.words[0]));
  const project = await read(mine);
  if (!route.isNow(mine)) return;
  if (project) {
    lay(project);
    element("project-parts").hidden = false;
    await members.show(mine);
  }
  await refresh(mine);
}

export function hide() {
  may = NOTHING;
  askedFor = null;
  whole = false;
  for (const id of ["project-gone", "project-parts"]) element(id).hidden = true;
  element("project-title").textContent = "Project";
  for (const id of ["project-about", "quota-use", "namespaces-rows", "project-clusters-rows"]) element(id).replaceChildren();
  namespaces.hide();
  members.hide();
}
export const forget = hide;

element("more-namespaces").addEventListener("click", () => {
  whole = true;
  route.refresh();
});
