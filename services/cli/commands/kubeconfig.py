"""`herdsman kubeconfig`: what plain kubectl needs, to stdout, to a file, or merged into the one that a person has."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.durations import parse_duration
from services.cli.files import write_private


class _Kubeconfig(click.Group):
    """`herdsman kubeconfig prod` is short for `herdsman kubeconfig get prod`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if known else ["get", *args])


@click.group(cls=_Kubeconfig)
def kubeconfig() -> None:
    """Get a kubeconfig ("get" may be left out), list those that hold a token, and revoke them."""


@kubeconfig.command("get")
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
@click.option(
    "--static", is_flag=True, help="With a token in the file, for machines; else kubectl asks herdsman for one."
)
@click.option(
    "--ttl", metavar="TIME", help="With --static: how long it is good for, such as 8h; the hub cuts what is too long."
)
@click.option("--read-only", is_flag=True, help="With --static: good for reading only.")
@click.option(
    "--set-current", metavar="CONTEXT", help="With --merge: make this the current context; without, that never changes."
)
@pass_app
def get(
    app: App, clusters: tuple[str, ...], merging: bool, file: Path | None, static: bool, ttl: str | None, read_only: bool,
    set_current: str | None,
) -> None:  # fmt: skip
    """Get a kubeconfig with a context for each of CLUSTERS (all that you may see) and "herdsman" for the hub itself.

    No token is in it: kubectl gets a short-lived one from "herdsman credential" while you are signed in.

    \b
    Examples:
      herdsman kubeconfig --merge && kubectl --context prod get pods
      herdsman kubeconfig prod --output prod.yaml --static --ttl 8h
    """
    from services.cli import kubeconfigs

    if merging and file:
        raise click.UsageError("--merge and --output exclude each other")
    if set_current and not merging:
        raise click.UsageError("--set-current needs --merge")
    if (ttl or read_only) and not static:
        raise click.UsageError("--ttl and --read-only need --static: without, the file holds no token")
    server = app.server()
    if server.name == "environment" and not static:
        raise click.UsageError("kubectl cannot use HERDSMAN_TOKEN later: add --static, or sign in with herdsman login")
    spec: dict[str, object] = {"clusters": list(clusters), "readOnly": read_only, "withoutToken": not static}
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
    if not static:
        config = kubeconfigs.add_plugin(config, server.url, server.user, _own_command(), _own_environment())
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


def _own_command() -> str:
    """How kubectl finds this program: by its name where the PATH has it, else by where it lies."""
    beside = Path(sys.executable).with_name("herdsman")
    return str(beside) if shutil.which("herdsman") is None and beside.is_file() else "herdsman"


def _own_environment() -> dict[str, str]:
    """A settings folder that was chosen for this call is the plug-in's too."""
    chosen = os.environ.get("HERDSMAN_CONFIG_DIR")
    return {"HERDSMAN_CONFIG_DIR": str(Path(chosen).expanduser().absolute())} if chosen else {}


@kubeconfig.command("list")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_kubeconfigs(app: App, output: str | None) -> None:
    """List the tokens of kubeconfigs that you may see: those in files, and the short-lived ones of kubectl."""
    others = ",".join(f"spec.purpose!={purpose}" for purpose in ("login", "session", "api", "federated"))
    with app.hub() as hub:
        out.print_list(hub, "tokens", output, fields=others, empty="no kubeconfigs")


@kubeconfig.command()
@click.argument("names", nargs=-1, required=True)
@pass_app
def revoke(app: App, names: tuple[str, ...]) -> None:
    """Revoke the tokens of kubeconfigs by NAME, as "herdsman kubeconfig list" shows them."""
    with app.hub() as hub:
        for name in names:
            purpose = hub.get(resources.path("tokens", name))["spec"]["purpose"]
            if purpose not in ("kubeconfig", "exec"):
                raise errors.Invalid(
                    f'token "{name}" is no kubeconfig\'s but of purpose {purpose}: see "herdsman token revoke"'
                )
            hub.delete(resources.path("tokens", name))
            out.note(f"kubeconfig token {name} is revoked")
