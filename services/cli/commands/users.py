"""`herdsman user`: local users of the hub. Their rights are `grant`'s business."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from libs.common import errors
from services.cli import output as out
from services.cli import resources
from services.cli.app import App, pass_app
from services.cli.commands.inactive_users import print_inactive
from services.cli.commands.second_factor import second_factor
from services.cli.durations import parse_duration
from services.cli.files import read_secret


@click.group()
def user() -> None:
    """Create, list, disable and delete users."""


user.add_command(second_factor)


@user.command()
@click.argument("name")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="File with the first password, - for stdin; asked for otherwise.",
)
@click.option("--display-name", default="", help="The name that people see.")
@pass_app
def create(app: App, name: str, password_file: Path | None, display_name: str) -> None:
    """Create a local user who signs in with a password.

    \b
    Example:
      herdsman user create ana --display-name "Ana Ruiz" --password-file ana-password
    """
    secret = (
        read_secret(password_file)
        if password_file
        else out.ask_password(f"Password for {name}", "--password-file", twice=True)
    )
    spec = {"displayName": display_name} if display_name else {}
    with app.hub() as hub:
        created = hub.post(resources.path("users"), resources.new("User", name, spec))
        try:
            hub.post("/v1/password", {"user": name, "new_password": secret})
        except (errors.Invalid, errors.BadRequest, errors.Denied) as error:
            # Refused for good: a user without a password would only be in the way of the next attempt.
            uid = (created.get("metadata") or {}).get("uid", "")
            hub.delete(
                resources.path("users", name),
                {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}},
            )
            raise type(error)(
                f'user "{name}" was not created, the password was refused: {error.message}', causes=error.causes
            ) from error
        except errors.HerdsmanError as error:
            raise type(error)(
                f'user "{name}" exists now but has no password yet ({error.message}): run "herdsman password {name}"'
            ) from error
    out.note(
        f'user "{name}" created, who has to change the password first; '
        f"give rights with: herdsman grant --user {name} --role ROLE --cluster CLUSTER"
    )


@user.command("create-service")
@click.argument("name")
@click.option("--description", required=True, help="What it is for, and who looks after it.")
@pass_app
def create_service(app: App, name: str, description: str) -> None:
    """Create a service user: a machine that nobody signs in as, and that tokens are issued for.

    \b
    Example:
      herdsman user create-service deploy-bot --description "deploys the shop; team shop"
      herdsman grant --user deploy-bot --role project-member --project shop
      herdsman token create --for deploy-bot --ttl 30d > ci-token
    """
    spec = {"service": True, "description": description, "displayName": name}
    with app.hub() as hub:
        hub.post(resources.path("users"), resources.new("User", name, spec))
    out.note(f'service user "{name}" created; a token for it: herdsman token create --for {name} --ttl 30d')


@user.command("list")
@click.option(
    "--inactive-for",
    metavar="TIME",
    help="Only enabled users who neither signed in nor used a token for so long: 90d, 12h.",
)
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_users(app: App, inactive_for: str | None, output: str | None) -> None:
    """List the users.

    \b
    Examples:
      herdsman user list -o wide
      herdsman user list --inactive-for 90d
    """
    period = timedelta(seconds=parse_duration(inactive_for)) if inactive_for else None
    with app.hub() as hub:
        if period is None:
            out.print_list(hub, "users", output)
        else:
            print_inactive(list(resources.list_items(hub, "users")), datetime.now(UTC) - period, output)


def _set_enabled(app: App, name: str, enabled: bool) -> None:
    with app.hub() as hub:
        hub.merge_patch(resources.path("users", name), {"spec": {"enabled": enabled}})


@user.command()
@click.argument("name")
@pass_app
def disable(app: App, name: str) -> None:
    """Refuse every call of NAME from now on and cut their open streams."""
    _set_enabled(app, name, False)
    out.note(f'user "{name}" is disabled')


@user.command()
@click.argument("name")
@pass_app
def enable(app: App, name: str) -> None:
    """Let NAME in again."""
    _set_enabled(app, name, True)
    out.note(f'user "{name}" is enabled')


@user.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_app
def delete(app: App, name: str, yes: bool) -> None:
    """Delete NAME with all tokens. A later user of the same name is somebody else."""
    out.confirm(f'Delete user "{name}" and all their tokens?', yes)
    with app.hub() as hub:
        hub.delete(resources.path("users", name))
    out.note(f'user "{name}" is deleted')
