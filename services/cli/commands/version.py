"""`herdsman version`: of this program, and with `--hub` of the hub."""

from __future__ import annotations

import json

import click

from libs.common.version import VERSION
from services.cli.app import App, pass_app


@click.command()
@click.option("--hub", "with_hub", is_flag=True, help="Ask the hub for its version too.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Print JSON.")
@pass_app
def version(app: App, with_hub: bool, output: str | None) -> None:
    """Print the version."""
    found = {"client": VERSION}
    if with_hub:
        with app.hub() as hub:
            found["hub"] = str(hub.get("/version").get("gitVersion", "unknown"))
    if output:
        click.echo(json.dumps(found))
        return
    for part, text in found.items():
        click.echo(f"{part}: {text}")
