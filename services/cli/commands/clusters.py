"""`herdsman cluster`: bring clusters in, look at them, let them go. Waiting and its words are in `services.cli.waiting`."""

from __future__ import annotations

from pathlib import Path

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.durations import format_elapsed, parse_duration
from services.cli.hub import Document, Hub

_FORCE = "management.herdsman.dev/force-delete"


@click.group()
def cluster() -> None:
    """Import, list, show and delete clusters."""


@cluster.command("list")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_clusters(app: App, output: str | None) -> None:
    """List the clusters that you may see."""
    with app.hub() as hub:
        out.print_list(hub, "clusters", output, empty='no clusters: bring one in with "herdsman cluster import NAME"')


@cluster.command()
@click.argument("name")
@out.output_option("json", "yaml")
@pass_app
def show(app: App, name: str, output: str | None) -> None:
    """Show one cluster with its conditions."""
    with app.hub() as hub:
        document = hub.get(resources.path("clusters", name))
    if output:
        out.print_document(document, output)
        return
    status = document.get("status") or {}
    agent = status.get("agent") or {}
    facts = {
        "name": name,
        "address": f"{app.server().url}/k8s/clusters/{name}",
        "phase": status.get("phase", "Pending"),
        "kubernetes": status.get("kubernetesVersion") or "unknown",
        "nodes": status.get("nodeCount", "unknown"),
        "agent": agent.get("version") or "none",
        "last heartbeat": agent.get("lastHeartbeat") or "never",
    }
    for key, value in facts.items():
        click.echo(f"{key + ':':<16}{value}")
    rows = [
        [c["type"], c["status"], c.get("lastTransitionTime", ""), c.get("message", "")]
        for c in status.get("conditions", ())
    ]
    if rows:
        click.echo("\n" + out.render_table(["CONDITION", "STATUS", "SINCE", "MESSAGE"], rows))


@cluster.command("import")
@click.argument("name")
@click.option("--display-name", default="", help="The name that people see.")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Apply the manifest to this cluster right away.",
)
@click.option(
    "--context",
    "kube_context",
    default="",
    metavar="NAME",
    help="Context of that kubeconfig; its current one otherwise.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait until the cluster is active.")
@click.option("--timeout", default="5m", show_default=True, metavar="TIME", help="How long to wait.")
@pass_app
def import_(
    app: App, name: str, display_name: str, kubeconfig: Path | None, kube_context: str, no_wait: bool, timeout: str
) -> None:
    """Bring an existing cluster in as NAME. It needs no open port: its agent dials out to the hub.

    \b
    Examples:
      herdsman cluster import prod                          prints the kubectl command to run there
      herdsman cluster import prod --kubeconfig ~/.kube/config --context prod
    """
    timeout_s = parse_duration(timeout)
    if kube_context and kubeconfig is None:
        raise click.UsageError("--context needs --kubeconfig")
    with app.hub() as hub:
        _create(hub, name, display_name)
        issued = hub.post(
            resources.path("clusters", name, "registration"),
            {"apiVersion": resources.API_VERSION, "kind": "ClusterRegistration", "spec": {}},
        ).get("status") or {}  # fmt: skip
        if kubeconfig is None:
            _print_how_to(name, issued)
            return
        from services.cli.cluster_import import apply_manifest

        manifest = hub.fetch("GET", _path_of(str(issued.get("manifestURL", ""))), accept="application/yaml")
        applied = apply_manifest(manifest, kubeconfig, kube_context)
        out.note(f"applied {len(applied)} objects: {', '.join(applied)}")
        if no_wait:
            out.note(f'the agent is starting; see "herdsman cluster show {name}"')
            return
        from services.cli.waiting import wait_active

        elapsed = wait_active(hub, name, timeout_s)
    out.note(
        f'cluster "{name}" is active after {format_elapsed(elapsed)}; get access with: herdsman kubeconfig --merge'
    )


def _create(hub: Hub, name: str, display_name: str) -> None:
    spec: Document = {"imported": {}}
    if display_name:
        spec["displayName"] = display_name
    try:
        hub.post(resources.path("clusters"), resources.new("Cluster", name, spec))
    except errors.AlreadyExists:
        existing = hub.get(resources.path("clusters", name))
        if (existing.get("metadata") or {}).get("deletionTimestamp"):
            raise errors.Conflict(
                f'cluster "{name}" is being deleted: wait until it is gone, see "herdsman cluster show {name}"'
            ) from None
        phase = (existing.get("status") or {}).get("phase", "Pending")
        if phase != "Pending":
            raise errors.AlreadyExists(
                f'cluster "{name}" is imported already ({phase}): choose another name, or remove that one with "herdsman cluster delete {name}"'
            ) from None
        out.note(f'cluster "{name}" was waiting for its agent already; the new registration replaces the old one')


def _path_of(url: str) -> str:
    """The path of a manifest on our own hub: the registration is worth something, so it is fetched from nowhere else."""
    from urllib.parse import urlsplit

    if not url:
        raise errors.Unavailable(
            "the hub sent no manifest address: check that hub and herdsman have the same version (herdsman version --hub)"
        )
    return urlsplit(url).path


def _print_how_to(name: str, issued: Document) -> None:
    """The command for the other cluster on stdout; what to know about it on stderr."""
    out.note(
        f'run this with an administrator\'s kubectl of "{name}", before {issued.get("expiresAt", "it expires")}; it works once:'
    )
    command = str(issued.get("command") or "")
    if not command:
        raise errors.Unavailable(
            "the hub sent no command: check that hub and herdsman have the same version (herdsman version --hub)"
        )
    click.echo(command)
    out.note(f'then watch it come up with "herdsman cluster show {name}"')


@cluster.command()
@click.argument("name")
@click.option(
    "--force", is_flag=True, help="Forget it although its agent cannot clean up; says what may be left there."
)
@click.option("--no-wait", is_flag=True, help="Do not wait until it is gone.")
@click.option("--timeout", default="5m", show_default=True, metavar="TIME", help="How long to wait.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete(app: App, name: str, force: bool, no_wait: bool, timeout: str, yes: bool) -> None:
    """Let a cluster go: the agent removes everything that it owns there, then the hub forgets it. Workloads stay.

    \b
    Examples:
      herdsman cluster delete prod
      herdsman cluster delete lost --force --yes
    """
    timeout_s = parse_duration(timeout)
    warning = " without cleaning up there" if force else ""
    out.confirm(f'Remove cluster "{name}" from the hub{warning}? Its workloads stay.', yes)
    with app.hub() as hub:
        uid = str((hub.get(resources.path("clusters", name)).get("metadata") or {}).get("uid", ""))
        hub.delete(
            resources.path("clusters", name),
            {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}},
        )
        if force:
            try:
                hub.merge_patch(resources.path("clusters", name), {"metadata": {"annotations": {_FORCE: "true"}}})
            except errors.NotFound:
                out.note("it was gone already")
        if no_wait:
            out.note(f'cluster "{name}" is being deleted; see "herdsman cluster show {name}"')
            return
        from services.cli.waiting import wait_gone

        elapsed, last_words = wait_gone(hub, name, uid, timeout_s)
    out.note(f'cluster "{name}" is gone after {format_elapsed(elapsed)}' + (f": {last_words}" if last_words else ""))
