"""`herdsman role`: what can be granted. Roles are made and changed with kubectl (`roletemplates`)."""

from __future__ import annotations

import click

from services.cli.app import App, pass_app
from services.cli.output import output_option, print_list


@click.group()
def role() -> None:
    """List the roles that can be granted."""


@role.command("list")
@click.option("--scope", type=click.Choice(["global", "cluster", "project"]), help="Only roles of this scope.")
@output_option("wide", "json", "yaml", "name")
@pass_app
def list_roles(app: App, scope: str | None, output: str | None) -> None:
    """List the role templates."""
    with app.hub() as hub:
        print_list(hub, "roletemplates", output, fields=f"spec.scope={scope}" if scope else "")
