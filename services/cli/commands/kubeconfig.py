"""`herdsman kubeconfig`: what plain kubectl needs, to stdout, to a file, or merged into the one that a person has."""

from __future__ import annotations

from pathlib import Path

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.durations import parse_duration
from services.cli.files import write_private


@click.command()
@click.argument("clusters", nargs=-1)
@click.option(
    "--merge",
    "merging",
    is_flag=True,
    help="Merge into $KUBECONFIG or ~/.kube/config; the old content is kept beside it.",
)
@click.option(
    "--output", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of stdout."
)
@click.option("--ttl", metavar="TIME", help="How long it is good for, such as 8h; the hub cuts what is too long.")
@click.option(
    "--set-current", metavar="CONTEXT", help="With --merge: make this the current context; without, that never changes."
)
@pass_app
def kubeconfig(
    app: App, clusters: tuple[str, ...], merging: bool, file: Path | None, ttl: str | None, set_current: str | None
) -> None:
    """Get a kubeconfig with a context for each of CLUSTERS (all that you may see) and "herdsman" for the hub itself.

    \b
    Examples:
      herdsman kubeconfig --merge && kubectl --context prod get pods
      herdsman kubeconfig prod --output prod.yaml --ttl 8h
    """
    from services.cli import kubeconfigs

    if merging and file:
        raise click.UsageError("--merge and --output exclude each other")
    if set_current and not merging:
        raise click.UsageError("--set-current needs --merge")
    server = app.server()
    spec: dict[str, object] = {"clusters": list(clusters)}
    if ttl:
        spec["ttlSeconds"] = parse_duration(ttl)
    with app.hub(server) as hub:
        document = hub.post(
            resources.path("kubeconfigs"), {"apiVersion": resources.API_VERSION, "kind": "Kubeconfig", "spec": spec}
        )
    status = document.get("status") or {}
    config = kubeconfigs.parse(str(status.get("kubeconfig") or ""), f"the answer of {server.url}")
    if config is None:
        raise errors.Unavailable(
            f"{server.url} sent no kubeconfig: check that hub and herdsman have the same version (herdsman version --hub)"
        )
    until = f", good until {status['expiresAt']}" if status.get("expiresAt") else ""
    contexts = ", ".join(kubeconfigs.context_names(config))
    if merging:
        target = kubeconfigs.default_file()
        backup = kubeconfigs.merge_into_file(target, config, server.url, set_current=set_current or "")
        out.note(f"merged into {target}{until}; contexts: {contexts}" + (f"; before: {backup}" if backup else ""))
    elif file is not None and str(file) != "-":
        write_private(file, kubeconfigs.render(config))
        out.note(f"wrote {file}{until}; contexts: {contexts}; use it with: export KUBECONFIG={file}")
    else:
        click.echo(kubeconfigs.render(config), nl=False)
