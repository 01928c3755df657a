"""`herdsman hub ca`: replace the certificate authority of the hub of this machine, and lose no cluster. The work is in `services.cli.up.rotation`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app

if TYPE_CHECKING:
    from services.cli.up.layout import Layout
    from services.cli.up.rotation import ClusterTrust

_data_dir = click.option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), help="The hub's folder; as for herdsman up."
)
_force = click.option("--force", is_flag=True, help="Go on even if clusters are lost by it.")
_AFTERWARDS = (
    "people fetch their kubeconfigs again and sign in again with --ca-file: what they have knows the old authority only"
)


@click.group()
def hub() -> None:
    """The hub of this machine."""


@hub.group("ca")
def authority() -> None:
    """Replace the hub's certificate authority: start, wait until status shows all clusters, switch, finish."""


@authority.command()
@_data_dir
def start(data_dir: Path | None) -> None:
    """Make the next certificate authority and announce it to all agents."""
    from datetime import UTC, datetime

    from services.cli.up import rotation

    rotation.start(_layout(data_dir), datetime.now(UTC))
    out.note(f'announced; "herdsman hub ca status" shows which clusters know it. Already now {_AFTERWARDS}')


@authority.command()
@_data_dir
@pass_app
def status(app: App, data_dir: Path | None) -> None:
    """Show how far it is, and which clusters know what is announced."""
    from services.cli.up import rotation

    layout = _layout(data_dir)
    step = rotation.step_of(layout)
    rows = [
        [c.name, "yes" if c.connected else "no", "yes" if c.knows else "not yet"]
        for c in sorted(_clusters(app, layout), key=lambda c: (c.knows, c.name))
    ]
    click.echo(f"step: {step}")
    click.echo(out.render_table(["CLUSTER", "CONNECTED", "KNOWS WHAT IS ANNOUNCED"], rows))


def _step(action: str, act: Callable[[Any, Layout], None]) -> Callable[[App, Path | None, bool], None]:
    def run(app: App, data_dir: Path | None, force: bool) -> None:
        from services.cli.up import rotation

        layout = _layout(data_dir)
        if not force:
            rotation.check_nobody_is_lost(_clusters(app, layout), action)
        act(rotation, layout)

    return run


@authority.command()
@_data_dir
@_force
@pass_app
def switch(app: App, data_dir: Path | None, force: bool) -> None:
    """Take the server certificate from the next authority. Refused while an agent does not know it."""
    from datetime import UTC, datetime

    _step("switch", lambda rotation, layout: rotation.switch(layout, datetime.now(UTC)))(app, data_dir, force)
    out.note(f'the new authority signs; "herdsman hub ca finish" drops the old one. {_AFTERWARDS.capitalize()}')


@authority.command()
@_data_dir
@_force
@pass_app
def finish(app: App, data_dir: Path | None, force: bool) -> None:
    """Drop the old authority. Refused while an agent does not know the new one."""
    _step("finish", lambda rotation, layout: rotation.finish(layout))(app, data_dir, force)
    out.note("the old authority is dropped: agents stop trusting it as soon as they hear of it")


def _layout(data_dir: Path | None) -> Layout:
    from services.cli.up.layout import Layout, default_data_dir

    return Layout((data_dir or default_data_dir(Path.cwd())).expanduser().absolute())


def _clusters(app: App, layout: Layout) -> list[ClusterTrust]:
    """Asked of the running hub, known by what is in its folder: what this person signed in with may be the old authority."""
    from dataclasses import replace

    from libs.common.crypto.bundle import digest_of
    from services.cli.up import rotation

    bundle = layout.ca_file.read_bytes()
    with app.hub(replace(app.server(), ca=bundle.decode("ascii"))) as connection:
        found = connection.get(resources.path("clusters")).get("items") or []
    return rotation.judge(found, digest_of(bundle))
