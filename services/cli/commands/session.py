"""`herdsman login`, `logout`, `whoami`, `password`: who you are to a hub. Settings are kept by `services.cli.settings`."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from libs.common import errors
from services.cli import output as out
from services.cli import settings
from services.cli.app import App, pass_app
from services.cli.files import read_secret
from services.cli.settings import Server

if TYPE_CHECKING:
    from services.cli.hub import Hub

LOCAL = "local"
_HEARD_WITHIN_S = 10.0
_REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@click.command()
@click.argument("url", required=False)
@click.option(
    "--ca-file", type=click.Path(path_type=Path), help="The hub's CA certificate (PEM); else the system's trust store."
)
@click.option("--user", help="User name; asked for otherwise.")
@click.option(
    "--password-file", type=click.Path(path_type=Path), help="File with the password, - for stdin; asked for otherwise."
)
@click.option(
    "--provider", show_default="local", help='Where your account is, with a password; see "herdsman provider list".'
)
@click.option(
    "--one-time-code",
    metavar="CODE",
    help="Second factor: the code of your device, or a recovery code; asked for otherwise.",
)
@click.option("--browser", is_flag=True, help="Sign in on the hub's page, in this machine's browser.")
@click.option("--device", is_flag=True, help="For a machine without a browser: shows a code that you give elsewhere.")
@click.option("--name", help="Name of this hub in your settings; its host and port otherwise.")
@pass_app
def login(
    app: App, url: str | None, ca_file: Path | None, user: str | None, password_file: Path | None, provider: str | None,
    one_time_code: str | None, browser: bool, device: bool, name: str | None,
) -> None:  # fmt: skip
    """Sign in to the hub at URL (or again to the current one).

    On a terminal your browser is opened; over SSH, or where there is none, a code is shown that you give in a browser elsewhere. With --user,
    --provider, --password-file or --one-time-code you sign in by password, here.

    \b
    Examples:
      herdsman login https://hub.example:8443 --ca-file hub-ca.crt
      herdsman login hub.example --user ana
      herdsman login hub.example --provider corp --user ana
      herdsman login hub.example --device
      herdsman login hub.example --user ci --password-file -  < password
    """
    known = settings.load_settings()
    server = _target(app, known, url, ca_file, name)
    by_password = bool(user or provider or password_file or one_time_code)
    if (browser or device) and by_password:
        raise click.UsageError(f"--{'browser' if browser else 'device'} asks nothing here: leave the other options out")
    if browser and device:
        raise click.UsageError("--browser is for this machine's browser and --device for one elsewhere: choose one")
    if not by_password and (browser or device or out.has_terminal()):
        answer = _by_page(app, server, browser=browser, device=device)
        user = str(answer.get("user") or "")
    else:
        user, answer = _with_password(app, server, user, password_file, provider or LOCAL, one_time_code)
    if not answer.get("token"):
        raise errors.Unavailable(
            f"{server.url} accepted the sign-in and sent no token: check that it is a Herdsman hub of this version"
        )
    first = not known.path.exists()
    signed_in = replace(
        server,
        user=str(answer.get("user") or user),
        token=str(answer["token"]),
        expires_at=str(answer.get("expires_at", "")),
    )
    known.put(signed_in)
    known.save()
    out.note(f"signed in to {server.url} as {signed_in.user}, until {signed_in.expires_at or 'revoked'}")
    for notice in answer.get("notices") or ():
        out.note(str(notice))
    if first:
        out.note(f"the sign-in is kept in {known.path}, readable by you alone")
    _tell_owed(answer)


def _tell_owed(session: dict[str, Any]) -> None:
    """What the hub wants to be done before it lets this person do anything else."""
    if session.get("must_change_password"):
        out.note(
            'your password was chosen by somebody else: until you change it with "herdsman password" nothing else is allowed'
        )
    if session.get("must_set_second_factor"):
        out.note(
            'this hub asks for a second factor: until you set it up with "herdsman user second-factor set" nothing else is allowed'
        )


def wait_until_done(hub: Hub, what: str) -> None:
    """The front door hears a moment later of what was done: the next command of a script must not be refused for it."""
    deadline = time.monotonic() + _HEARD_WITHIN_S
    while True:
        session = hub.get("/v1/session")
        if not session.get(what):
            return _tell_owed(session)
        if time.monotonic() > deadline:
            raise errors.Unavailable("it is done, and the hub does not act on it yet: try again in a moment")
        time.sleep(0.05)


def _by_page(app: App, server: Server, *, browser: bool, device: bool) -> dict[str, Any]:
    from services.cli import browser_login, device_login

    with app.hub(replace(server, token="")) as hub:
        if browser or (not device and browser_login.has_browser()):
            return browser_login.sign_in(hub, out.note)
        return device_login.sign_in(hub, out.note)


def _with_password(
    app: App, server: Server, user: str | None, password_file: Path | None, provider: str, one_time_code: str | None
) -> tuple[str, dict[str, Any]]:
    if user is None:
        if not out.has_terminal():
            raise click.UsageError("there is no terminal to ask for the user name on: add --user NAME")
        user = str(click.prompt("User", default=server.user or None, err=True))
    secret = read_secret(password_file) if password_file else out.ask_password("Password", "--password-file")
    with app.hub(replace(server, token="")) as hub:
        given = {
            "user": user,
            "password": secret,
            "provider": provider,
            "description": f"herdsman on {socket.gethostname()}"[:256],
        }
        if one_time_code:
            given["one_time_code"] = one_time_code
        try:
            answer = hub.post("/v1/login", given)
        except errors.SecondFactorNeeded as error:
            if not out.has_terminal():
                raise errors.SecondFactorNeeded(f"{error.message}: add --one-time-code CODE") from error
            answer = hub.post("/v1/login", {**given, "one_time_code": click.prompt("One-time code", err=True)})
    return user, answer


def _target(app: App, known: settings.Settings, url: str | None, ca_file: Path | None, name: str | None) -> Server:
    ca = settings.read_ca(ca_file) if ca_file else None
    if url is None:
        server = app.server()
        return replace(server, ca=ca if ca is not None else server.ca)
    address = settings.normalize_url(url)
    name = name or app.context or address.removeprefix("https://")
    before = known.servers.get(name)
    # The CA belongs to the address: another hub under an old name starts without it.
    remembered = before.ca if before is not None and before.url == address else ""
    return Server(name, address, ca if ca is not None else remembered, user=before.user if before else "")


@click.command()
@pass_app
def logout(app: App) -> None:
    """Revoke this sign-in on the hub and forget it here."""
    server = app.server()
    if server.token:
        try:
            # Unauthenticated is as good as done: it had ended, or the front door cut this call too when the token went.
            with app.hub(server) as hub, contextlib.suppress(errors.Unauthenticated):
                hub.post("/v1/logout", {})
        except errors.Unavailable as error:
            # It stays valid on the hub until it ends; forgetting it here without a word would hide that.
            _forget(server)
            raise errors.Unavailable(
                f"forgotten here, but not revoked on the hub, where it ends at {server.expires_at}: {error.message}"
            ) from error
    _forget(server)
    out.note(f"signed out of {server.url}")


def _forget(server: Server) -> None:
    from services.cli.token_store import TokenStore

    TokenStore(server.url).clear()
    known = settings.load_settings()
    if server.name in known.servers:
        # Address and CA stay, so that "herdsman login" is enough to come back.
        known.put(replace(server, token="", expires_at=""), make_current=False)
        known.save()


@click.command()
@out.output_option("json", "yaml")
@pass_app
def whoami(app: App, output: str | None) -> None:
    """Show who you are to the hub: the name that its audit log shows."""
    server = app.server()
    with app.hub(server) as hub:
        review = hub.post(_REVIEW, {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})
    if output:
        out.print_document(review, output)
        return
    info: dict[str, Any] = (review.get("status") or {}).get("userInfo") or {}
    click.echo(str(info.get("username", "")))
    out.note(f"at {server.url}" + (f", signed in until {server.expires_at}" if server.expires_at else ""))


@click.command()
@click.argument("user", required=False)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path),
    help="File with the current password (only for your own), - for stdin.",
)
@click.option(
    "--new-password-file", type=click.Path(path_type=Path), help="File with the new password; asked for otherwise."
)
@pass_app
def password(app: App, user: str | None, password_file: Path | None, new_password_file: Path | None) -> None:
    """Change your password, or set that of USER if you may.

    \b
    Examples:
      herdsman password
      herdsman password ana --new-password-file ana-password
    """
    server = app.server()
    own = user is None or user == server.user
    name = user or server.user or own_name(app, server)
    body = {"user": name}
    if own:
        body["current_password"] = (
            read_secret(password_file) if password_file else out.ask_password("Current password", "--password-file")
        )
    body["new_password"] = (
        read_secret(new_password_file)
        if new_password_file
        else out.ask_password(f"New password for {name}", "--new-password-file", twice=True)
    )
    with app.hub(server) as hub:
        hub.post("/v1/password", body)
        out.note(
            f"the password of {name} is changed"
            + ("" if own else "; every sign-in and token of theirs has ended, and they have to change it first")
        )
        if own:
            wait_until_done(hub, "must_change_password")


def own_name(app: App, server: Server) -> str:
    """The caller's user name as the hub knows it."""
    with app.hub(server) as hub:
        return str(hub.get("/v1/session").get("user", ""))
