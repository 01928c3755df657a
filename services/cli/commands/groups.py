"""`herdsman group`: groups of the hub itself. Their rights are `grant`'s business."""

from __future__ import annotations

from collections.abc import Callable

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.hub import Hub

_PLURAL = "groups"
_TRIES = 5


@click.group()
def group() -> None:
    """Create, fill, list and delete groups of users."""


@group.command()
@click.argument("name")
@click.argument("members", nargs=-1)
@click.option("--display-name", default="", help="The name that people see.")
@click.option("--description", default="", help="What it is for, and who looks after it.")
@pass_app
def create(app: App, name: str, members: tuple[str, ...], display_name: str, description: str) -> None:
    """Create the group NAME, of the users MEMBERS.

    \b
    Example:
      herdsman group create shop-team ana bob --description "team shop"
      herdsman grant --group shop-team --role project-member --project shop
    """
    given = {"displayName": display_name, "description": description, "members": list(members)}
    with app.hub() as hub:
        hub.post(resources.path(_PLURAL), resources.new("Group", name, {k: v for k, v in given.items() if v}))
    out.note(f'group "{name}" created; give rights with: herdsman grant --group {name} --role ROLE --cluster CLUSTER')


@group.command("list")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_groups(app: App, output: str | None) -> None:
    """List the groups."""
    with app.hub() as hub:
        out.print_list(hub, _PLURAL, output)


@group.command()
@click.argument("name")
@click.argument("members", nargs=-1, required=True)
@pass_app
def add(app: App, name: str, members: tuple[str, ...]) -> None:
    """Let the users MEMBERS into the group NAME: they have its rights from their next call on.

    Only who holds all rights of the group lets somebody in.
    """
    with app.hub() as hub:
        changed = _change(hub, name, lambda before: [*before, *(m for m in dict.fromkeys(members) if m not in before)])
    out.note(
        f'{", ".join(members)} {"are" if len(members) > 1 else "is"} in group "{name}"'
        + ("" if changed else " already")
    )


@group.command()
@click.argument("name")
@click.argument("members", nargs=-1, required=True)
@pass_app
def remove(app: App, name: str, members: tuple[str, ...]) -> None:
    """Take the users MEMBERS out of the group NAME: its rights are lost, and open streams cut."""
    with app.hub() as hub:
        changed = _change(hub, name, lambda before: [m for m in before if m not in members])
    if not changed:
        raise errors.NotFound(f'none of {", ".join(members)} is in group "{name}"')
    out.note(f'{", ".join(members)} {"are" if len(members) > 1 else "is"} no longer in group "{name}"')


@group.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete(app: App, name: str, yes: bool) -> None:
    """Delete the group NAME: its members lose its rights. A later group of the same name is another one."""
    out.confirm(f'Delete group "{name}", so that its members lose its rights?', yes)
    with app.hub() as hub:
        hub.delete(resources.path(_PLURAL, name))
    out.note(f'group "{name}" is deleted')


def _change(hub: Hub, name: str, after: Callable[[list[str]], list[str]]) -> bool:
    """Write the members anew, on what is there now; somebody else's change meanwhile is not lost. Returns whether anything changed."""
    for left in reversed(range(_TRIES)):
        found = hub.get(resources.path(_PLURAL, name))
        before = [str(member) for member in (found.get("spec") or {}).get("members") or ()]
        members = after(before)
        if members == before:
            return False
        version = (found.get("metadata") or {}).get("resourceVersion")
        try:
            hub.merge_patch(
                resources.path(_PLURAL, name), {"metadata": {"resourceVersion": version}, "spec": {"members": members}}
            )
        except errors.Conflict:
            if not left:
                raise
        else:
            return True
    raise AssertionError("the last try returns or raises")
