"""`herdsman provider`: where people's accounts are. Providers are made with kubectl; here they are listed, tried and searched."""

from __future__ import annotations

from pathlib import Path

import click

from libs.common import errors
from services.cli import output as out
from services.cli.app import App, pass_app
from services.cli.files import read_secret


@click.group()
def provider() -> None:
    """List, test and search identity providers."""


@provider.command("list")
@out.output_option("wide", "json", "yaml", "name")
@pass_app
def list_providers(app: App, output: str | None) -> None:
    """List the providers; for administrators."""
    with app.hub() as hub:
        out.print_list(hub, "identityproviders", output)


@provider.command()
@click.argument("name")
@click.option("--user", metavar="NAME", help="Try a sign-in of this person, which lets nobody in.")
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="File with that person's password, - for stdin; asked for otherwise.",
)
@pass_app
def test(app: App, name: str, user: str | None, password_file: Path | None) -> None:
    """Try whether provider NAME works as it is configured, enabled or not.

    \b
    Examples:
      herdsman provider test corp
      herdsman provider test corp --user ana
    """
    body = {}
    if user:
        body = {
            "user": user,
            "password": read_secret(password_file)
            if password_file
            else out.ask_password("Password", "--password-file"),
        }
    with app.hub() as hub:
        tested = hub.post(f"/v1/identity-providers/{name}/test", body)
    for notice in tested.get("notices") or ():
        out.note(str(notice))
    if not tested.get("ok"):
        raise errors.Unavailable(f"the provider does not work: {tested.get('problem')}")
    out.note(f"the provider works; it took {tested.get('took_ms')} ms")
    if user:
        click.echo(f"{tested.get('user_name')}  {tested.get('principal_id')}")
        for group in tested.get("groups") or ():
            click.echo(f"  {group}")


@provider.command()
@click.argument("text")
@click.option("--kind", type=click.Choice(["user", "group"]), help="Only users, or only groups.")
@click.option("--provider", "name", default="", metavar="NAME", help="Only at this provider.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print the answer of the hub.")
@pass_app
def search(app: App, text: str, kind: str | None, name: str, limit: int, output: str | None) -> None:
    """Find users and groups whose name holds TEXT, to give roles to.

    \b
    Example:
      herdsman provider search ops --kind group
      herdsman grant --principal corp:group:6f1f2e1c-7d3a-4a55-9a53-0f6a1b2c3d4e --role cluster-member --cluster prod
    """
    with app.hub() as hub:
        found = hub.get("/v1/principals", {"text": text, "kind": kind or "", "provider": name, "limit": str(limit)})
    if output:
        out.print_document(found, output)
        return
    rows = [
        [p["kind"], p["name"], p.get("display_name", ""), p.get("email", ""), p["principal_id"]]
        for p in found.get("principals") or ()
    ]
    click.echo(out.render_table(["KIND", "NAME", "DISPLAY NAME", "E-MAIL", "PRINCIPAL"], rows))
    for notice in found.get("notices") or ():
        out.note(str(notice))
