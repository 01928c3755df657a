"""`herdsman context`: the hubs that this person signed in to. Nothing here speaks to a hub."""

from __future__ import annotations

import click

from libs.common import errors
from services.cli import output, settings


@click.group()
def context() -> None:
    """List, choose and forget the hubs you signed in to."""


@context.command("list")
def list_contexts() -> None:
    """List them; the star marks the current one."""
    known = settings.load_settings()
    rows = [
        [
            "*" if s.name == known.current else "",
            s.name,
            s.url,
            s.user or "-",
            s.expires_at if s.token else "signed out",
        ]
        for s in known.servers.values()
    ]
    if not rows:
        output.note('none yet: run "herdsman login URL"')
        return
    click.echo(output.render_table(["", "NAME", "URL", "USER", "SIGNED IN UNTIL"], rows))


@context.command()
@click.argument("name")
def use(name: str) -> None:
    """Make NAME the current hub."""
    known = settings.load_settings()
    _check_known(known, name)
    known.current = name
    known.save()
    output.note(f"now using {known.servers[name].url}")


@context.command()
@click.argument("name")
def forget(name: str) -> None:
    """Drop NAME from the settings. Run `herdsman logout` first if you are signed in."""
    known = settings.load_settings()
    _check_known(known, name)
    if known.servers[name].token:
        raise errors.Conflict(f'you are still signed in there: run "herdsman --context {name} logout" first')
    known.remove(name)
    known.save()
    output.note(f"forgot {name}")


def _check_known(known: settings.Settings, name: str) -> None:
    if name not in known.servers:
        raise errors.NotFound(f'no hub is called "{name}" here: see "herdsman context list"')
