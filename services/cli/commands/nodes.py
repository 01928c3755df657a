"""`herdsman node`: the nodes of all clusters, what they are and what happened to them."""

from __future__ import annotations

import click

from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.hub import Document, segment

_PLURAL = "nodes"
_cluster_option = click.option("--cluster", default="", metavar="NAME", help="NAME is the node's name in this cluster.")


@click.group()
def node() -> None:
    """List nodes, show one, and see what happened to it."""


@node.command("list")
@click.option("--cluster", default="", metavar="NAME", help="Those of this cluster alone.")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Those with these labels.")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_nodes(app: App, cluster: str, selector: str, output: str | None) -> None:
    """List the nodes that you may see.

    \b
    Examples:
      herdsman node list --cluster prod -o wide
      herdsman node list -l topology.kubernetes.io/zone=eu-1a
    """
    fields = f"spec.cluster={cluster}" if cluster else ""
    with app.hub() as hub:
        out.print_list(hub, _PLURAL, output, fields=fields, labels=selector, empty="no nodes that you may see")


@node.command()
@click.argument("name")
@_cluster_option
@out.output_option("json", "yaml")
@pass_app
def show(app: App, name: str, cluster: str, output: str | None) -> None:
    """Show one node: which machine it is, what it runs, what it has, and how it is.

    \b
    Examples:
      herdsman node show prod.worker-1
      herdsman node show worker-1 --cluster prod
    """
    name = _object_name(name, cluster)
    with app.hub() as hub:
        document = hub.get(resources.path(_PLURAL, name))
        if output:
            out.print_document(document, output)
            return
        same = hub.get(_history_path(name)).get("sameIdentity") or []
    status = document.get("status") or {}
    for key, value in _facts(name, document, same).items():
        if value not in ("", None):
            click.echo(f"{key + ':':<18}{out.printable(str(value))}")
    amounts = status.get("capacity") or {}
    if amounts:
        rows = [[r, amounts[r], (status.get("allocatable") or {}).get(r, "")] for r in sorted(amounts)]
        click.echo("\n" + out.render_table(["RESOURCE", "CAPACITY", "ALLOCATABLE"], rows))
    conditions = status.get("conditions") or []
    if conditions:
        rows = [
            [c["type"], c["status"], c.get("lastTransitionTime", ""), c.get("reason", ""), c.get("message", "")]
            for c in conditions
        ]
        click.echo("\n" + out.render_table(["CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE"], rows))
    labels = (document.get("metadata") or {}).get("labels") or {}
    if labels:
        click.echo("\n" + out.render_table(["LABEL", "VALUE"], [[key, labels[key]] for key in sorted(labels)]))


@node.command()
@click.argument("name")
@_cluster_option
@out.output_option("json", "yaml")
@pass_app
def history(app: App, name: str, cluster: str, output: str | None) -> None:
    """Show what happened to the machine that a node is: the last changes, also from before it registered again or was renamed.

    What changed again and again within ten minutes is one line.
    """
    with app.hub() as hub:
        found = hub.get(_history_path(_object_name(name, cluster)))
    if output:
        out.print_document(found, output)
        return
    changes = found.get("changes") or []
    if not changes:
        out.note("nothing is known of it yet")
        return
    if found.get("dropped"):
        out.note(f"{found['dropped']} older changes are not kept")
    rows = [[c["time"], _times(c), c.get("what", ""), c.get("before", ""), c.get("after", "")] for c in changes]
    click.echo(out.render_table(["TIME", "TIMES", "WHAT", "BEFORE", "AFTER"], rows))


def _times(change: Document) -> str:
    return str(change.get("count", 1)) + (f" until {change['until']}" if change.get("until") else "")


def _object_name(name: str, cluster: str) -> str:
    return f"{cluster}.{name}" if cluster else name


def _history_path(name: str) -> str:
    return f"/v1/nodes/{segment(name)}/history"


def _facts(name: str, document: Document, same: list[str]) -> dict[str, object]:
    spec, status = document.get("spec") or {}, document.get("status") or {}
    ready = {True: "yes", False: "no", None: "unknown"}[status.get("ready")]
    taints = [
        f"{t.get('key')}{'=' if t.get('value') else ''}{t.get('value', '')}:{t.get('effect')}"
        for t in status.get("taints") or ()
    ]
    return {
        "name": name, "cluster": spec.get("cluster"), "node": spec.get("nodeName"),
        "ready": ready + (", scheduling disabled" if status.get("unschedulable") else ""), "roles": ", ".join(status.get("roles") or ()) or "none",
        "machine": status.get("machine"), "first seen": status.get("firstSeen"), "former names": ", ".join(status.get("formerNames") or ()),
        "reboots": str(status.get("reboots", 0)) + (f", the last seen {status['bootedAt']}" if status.get("bootedAt") else ""),
        "same identity as": ", ".join(same), "provider id": status.get("providerID"), "system uuid": status.get("systemUUID"),
        "machine id": status.get("machineID"), "boot id": status.get("bootID"), "kubelet": status.get("kubeletVersion"),
        "operating system": status.get("osImage"), "kernel": status.get("kernelVersion"), "runtime": status.get("containerRuntime"),
        "architecture": status.get("architecture"),
        "addresses": ", ".join(f"{a.get('type')} {a.get('address')}" for a in status.get("addresses") or ()),
        "pod networks": ", ".join(status.get("podCIDRs") or ()), "taints": ", ".join(taints),
        "left out": ", ".join(f"{count} {what}" for what, count in sorted((status.get("leftOut") or {}).items())),
        "last observed": status.get("lastObserved"),
    }  # fmt: skip
