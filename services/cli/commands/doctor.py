"""`herdsman doctor`: looks at everything between this machine and the hub, and says what to do. The checks are in `services.cli.checks`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from services.cli.app import App, pass_app


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help='Also look at the hub of this machine ("herdsman up").',
)
@click.option("-o", "--output", type=click.Choice(["json"]), help="Print JSON.")
@pass_app
def doctor(app: App, data_dir: Path | None, output: str | None) -> int:
    """Find out why something does not work. Exit code 1 when a check fails."""
    from services.cli.checks import examine
    from services.cli.output import render_table

    findings = list(examine(app, data_dir))
    if output:
        click.echo(json.dumps([f._asdict() for f in findings], indent=2))
    else:
        click.echo(render_table(["CHECK", "RESULT", "DETAIL"], [[f.check, f.result, f.detail] for f in findings]))
    return 1 if any(f.result == "fail" for f in findings) else 0
