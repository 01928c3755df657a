// The clusters that the person may see.
import { element, list, row } from "/ui/hub.js";
import * as route from "/ui/route.js";
import { fill, showEmpty } from "/ui/table.js";

function clusterRow(cluster) {
  const status = cluster.status || {};
  const problem = (status.conditions || []).find((c) => c.type === "Connected" && c.status !== "True");
  const cells = [cluster.metadata.name, status.phase, status.kubernetesVersion, status.nodeCount, problem && problem.message];
  const line = row(cells);
  line.cells[1].dataset.phase = status.phase || "Pending";
  if (status.nodeCount !== undefined) line.cells[3].dataset.label = status.nodeCount === 1 ? "node" : "nodes";
  return line;
}

let pages = 1;

async function refresh(mine) {
  const found = await list("clusters", { pages });
  if (!route.isNow(mine)) return;
  fill(element("rows"), found.items, (cluster) => cluster.metadata.uid, clusterRow);
  showEmpty(element("table"), element("none"), found.items.length === 0);
  element("more-clusters").hidden = !found.more;
}

element("more-clusters").addEventListener("click", () => {
  pages += 1;
  route.refresh();
});

route.add("clusters", {
  show: refresh,
  refresh,
  forget() {
    pages = 1;
    element("rows").replaceChildren();
  },
});
