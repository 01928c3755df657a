"""The command `herdsman-kubelab`: start, stop and list clusters, build their programs, look at the machine.

Exit codes: 0 done, 1 it did not work and stderr says why in a sentence, 2 wrong usage, 3 something is missing.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import structlog

from integration.kubelab import build as builder
from integration.kubelab import doctor as examiner
from integration.kubelab.cluster import Cluster, list_clusters
from integration.kubelab.cluster import down as down_cluster
from integration.kubelab.paths import Layout, default_state_dir, write_private
from integration.kubelab.run import Wanted
from integration.kubelab.run import run as run_cluster
from libs.common.errors import HerdsmanError

T = TypeVar("T")

_directory = click.option("--dir", "directory", type=click.Path(path_type=Path), help="Where clusters live.")
_full = click.option("--full", is_flag=True, help="With scheduler and a node that runs pods; needs root.")
_minimal = click.option("--minimal", is_flag=True, help="Only etcd and kube-apiserver: objects, but no controllers.")
_output = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)


class _Commands(click.Group):
    """Errors of ours become one sentence on stderr, never a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except HerdsmanError as error:
            raise click.ClickException(error.message) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Real Kubernetes clusters on this machine, for development and tests."""
    # stdout belongs to results that scripts read.
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@main.command()
@click.argument("name")
@_full
@_minimal
@_directory
@click.option(
    "--kubeconfig-out", type=click.Path(path_type=Path, dir_okay=False), help="Also copy the kubeconfig here."
)
@_output
def up(name: str, full: bool, minimal: bool, directory: Path | None, kubeconfig_out: Path | None, output: str) -> None:
    """Start cluster NAME in the background; return when it works."""
    _check_kind(full, minimal)
    cluster = asyncio.run(Cluster.up(name, directory, full, minimal=minimal, attached=False))
    if kubeconfig_out is not None:
        kubeconfig_out.parent.mkdir(parents=True, exist_ok=True)
        write_private(kubeconfig_out, cluster.kubeconfig.read_bytes())
    path = kubeconfig_out or cluster.kubeconfig
    if output == "json":
        click.echo(json.dumps({
            "name": name, "kubeconfig": str(path), "server": cluster.server, "full": cluster.full,
            "host_address": cluster.host_address, "ca_file": str(cluster.ca_file), "pids": cluster.pids(),
        }))  # fmt: skip
    else:
        click.echo(str(path))


@main.command()
@click.argument("name")
@_directory
@click.option("--delete", is_flag=True, help="Also delete its data.")
def down(name: str, directory: Path | None, delete: bool) -> None:
    """Stop cluster NAME; its data stays for the next start."""
    asyncio.run(down_cluster(Layout.of(name, directory or default_state_dir()), delete=delete))


@main.command("list")
@_directory
@_output
def list_(directory: Path | None, output: str) -> None:
    """List clusters with what runs of them."""
    rows = [
        {
            "name": layout.name,
            "running": state is not None,
            "ready": bool(state and state["ready"]),
            "full": bool(state and state["full"]),
            "server": state["server"] if state else None,
            "kubeconfig": str(layout.kubeconfig),
        }
        for layout, state in list_clusters(directory)
    ]
    if output == "json":
        click.echo(json.dumps(rows))
        return
    for row in rows:
        condition = "ready" if row["ready"] else "starting" if row["running"] else "stopped"
        click.echo(f"{row['name']:<24} {condition:<9} {row['server'] or '-':<28} {row['kubeconfig']}")


@main.command()
@click.argument("name")
@_full
@_minimal
@_directory
def run(name: str, full: bool, minimal: bool, directory: Path | None) -> None:
    """Run cluster NAME in the foreground until SIGTERM; print one JSON line when it works."""
    _check_kind(full, minimal)
    _run_until_stopped(
        run_cluster(Wanted(Layout.of(name, directory or default_state_dir()), full=full, minimal=minimal), click.echo)
    )


@main.command()
@click.option("--check", is_flag=True, help="Only tell what is there; exit code 3 if a build is needed.")
def build(check: bool) -> None:
    """Build the programs with Go, once for each version, into the cache."""
    found, sentence = builder.describe()
    if check:
        click.echo(sentence)
        raise SystemExit(0 if found else 3)
    if not found:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a cut build clears its folder away
        builder.build(lambda line: click.echo(line, err=True))
        _, sentence = builder.describe()
    click.echo(sentence)


@main.command()
@_output
def doctor(output: str) -> None:
    """Tell what this machine lacks; exit code 3 if a full cluster can't run."""
    findings = examiner.examine()
    command = examiner.remedy(findings)
    if output == "json":
        rows = [{"what": f.what, "ok": f.ok, "detail": f.detail, "needed_by": f.needed_by} for f in findings]
        click.echo(json.dumps({"findings": rows, "remedy": command}))
    else:
        for finding in findings:
            click.echo(
                f"{'ok     ' if finding.ok else 'MISSING'} {finding.what:<28} {finding.detail}  ({finding.needed_by})"
            )
        if missing := [finding.what for finding in findings if not finding.ok]:
            click.echo(f"\nmissing: {', '.join(missing)}{f'; {command}' if command else ''}")
    raise SystemExit(0 if all(finding.ok for finding in findings) else 3)


@main.command("image-import")
@click.argument("name")
@click.argument("tarball", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_directory
def image_import(name: str, tarball: Path, directory: Path | None) -> None:
    """Put the image in TARBALL (docker-archive or OCI) onto the node of cluster NAME."""
    click.echo(asyncio.run(Cluster.find(name, directory).import_image(tarball)).strip())


@main.command("agent-image")
@click.argument("names", nargs=-1)
@_directory
def agent_image(names: tuple[str, ...], directory: Path | None) -> None:
    """Make the agent's image, and put it onto the nodes of the full clusters NAMES."""
    # Only here: this one command needs the packages of the services.
    from integration.kubelab.agent_image import AGENT_IMAGE
    from integration.kubelab.agent_image import agent_image as make

    clusters = [Cluster.find(name, directory) for name in names]
    began = time.monotonic()
    tarball = make()
    click.echo(f"{AGENT_IMAGE}  {tarball.stat().st_size / 1e6:.0f} MB  {time.monotonic() - began:.1f} s  {tarball}")
    for cluster in clusters:
        began = time.monotonic()
        asyncio.run(cluster.import_image(tarball))
        click.echo(f"{cluster.name}: imported  {time.monotonic() - began:.1f} s")


def _check_kind(full: bool, minimal: bool) -> None:
    if full and minimal:
        raise click.UsageError("--full and --minimal exclude each other")


def _run_until_stopped(work: Coroutine[Any, Any, T]) -> T:
    """asyncio.run, with failures that came as a group of one shown as that one."""
    try:
        return asyncio.run(work)
    except BaseExceptionGroup as group:
        ours, others = group.split(HerdsmanError)
        if ours is None or others is not None:
            raise
        failure: BaseException = ours
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        raise failure from None
