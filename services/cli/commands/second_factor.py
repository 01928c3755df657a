"""`herdsman user second-factor`: one-time codes for an account of the hub itself, set up and taken away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from libs.common import errors
from services.cli import output as out
from services.cli.app import App, pass_app
from services.cli.commands.session import wait_until_done
from services.cli.files import read_secret

TRIES = 3
_BLACK_ON_WHITE, _PLAIN = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
_HALVES = {"00": " ", "10": "▀", "01": "▄", "11": "█"}
"""The upper and the lower module of one character; dark is drawn."""


@click.group("second-factor")
def second_factor() -> None:
    """Ask for a one-time code when you sign in, or no longer."""


@second_factor.command("set")
@click.option("--password-file", type=click.Path(path_type=Path), help="File with your password; asked for otherwise.")
@pass_app
def set_up(app: App, password_file: Path | None) -> None:
    """Set up one-time codes of a device (TOTP) for your account of the hub itself.

    Shows a QR code for an app on your phone, asks for the code that the app shows then, and prints recovery codes: each lets you in
    once when the device is lost. They are seen here only.

    \b
    Examples:
      herdsman user second-factor set
      herdsman user second-factor set > recovery-codes
    """
    if not out.has_terminal():
        raise click.UsageError("there is no terminal to show the secret on and to ask for a code: run this in one")
    password = read_secret(password_file) if password_file else out.ask_password("Your password", "--password-file")
    with app.hub() as hub:
        begun = hub.post("/v1/second-factor", {"password": password})
        out.note("Read this with an app for one-time codes, on your phone:")
        rows = begun.get("qr")
        if isinstance(rows, list):
            out.note("\n".join(draw([str(row) for row in rows])))
        out.note(f"or give it the secret: {spaced(str(begun.get('secret', '')))}")
        codes = _confirm(hub, password)
        out.note(
            "Your second factor is set up. If you lose the device, each of these recovery codes lets you in once; this is "
            "the only time that they are shown, so keep them where the device is not:"
        )
        for code in codes:
            click.echo(code)
        wait_until_done(hub, "must_set_second_factor")


def _confirm(hub: Any, password: str) -> list[str]:
    for left in reversed(range(TRIES)):
        code = str(click.prompt("The code that it shows now", err=True)).strip()
        try:
            answer = hub.post("/v1/second-factor/confirm", {"password": password, "code": code})
        except errors.Invalid as error:
            if not left:
                raise
            out.note(error.message)
        else:
            return [str(one) for one in answer.get("codes") or ()]
    raise AssertionError("the last try answers or raises")


@second_factor.command()
@click.argument("user", required=False)
@click.option("--password-file", type=click.Path(path_type=Path), help="File with your password; asked for otherwise.")
@click.option("--one-time-code", metavar="CODE", help="A code of your device, or a recovery code; asked for otherwise.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before that of USER is removed.")
@pass_app
def remove(app: App, user: str | None, password_file: Path | None, one_time_code: str | None, yes: bool) -> None:
    """Remove your second factor, or that of USER, who lost the device, if you may set their password.

    \b
    Examples:
      herdsman user second-factor remove
      herdsman user second-factor remove ana
    """
    server = app.server()
    body: dict[str, Any] = {}
    if user is None or user == server.user:
        body["password"] = (
            read_secret(password_file) if password_file else out.ask_password("Your password", "--password-file")
        )
        if one_time_code is None and not out.has_terminal():
            raise click.UsageError("there is no terminal to ask for a code on: add --one-time-code CODE")
        body["code"] = one_time_code or str(click.prompt("One-time code, or a recovery code", err=True))
    else:
        if password_file or one_time_code:
            raise click.UsageError(f"the second factor of {user} needs no password and no code of theirs")
        out.confirm(f'Let "{user}" sign in with the password alone?', yes)
        body["user"] = user
    with app.hub(server) as hub:
        hub.post("/v1/second-factor/remove", body)
    out.note(f"the second factor of {user or server.user or 'your account'} is removed")


def draw(rows: list[str]) -> list[str]:
    """The lines of a terminal, black on white whatever its colours, two rows of modules in each."""
    rows = [*rows, "0" * len(rows[0])] if len(rows) % 2 else rows
    return [
        _BLACK_ON_WHITE + "".join(_HALVES[upper + lower] for upper, lower in zip(*pair, strict=True)) + _PLAIN
        for pair in zip(rows[::2], rows[1::2], strict=True)
    ]


def spaced(secret: str) -> str:
    return " ".join(secret[start : start + 4] for start in range(0, len(secret), 4))
