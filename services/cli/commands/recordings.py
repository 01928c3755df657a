"""`herdsman recordings`: exec and attach sessions that a policy had recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from libs.common import errors
from services.cli import output as out
from services.cli.app import App, pass_app
from services.cli.durations import format_elapsed, format_moment, parse_duration

if TYPE_CHECKING:
    from services.cli.recording import Event, Recording

_ID = click.argument("id_", metavar="ID")
COLUMNS = ["ID", "USER", "CLUSTER", "POD", "COMMAND", "DURATION", "END"]


@click.group()
def recordings() -> None:
    """List, play, export and verify recorded sessions.

    Sessions are recorded where an AuditPolicy says recordSessions; administrators and auditors may see them.
    """


@recordings.command("list")
@click.option("--user", metavar="NAME", help="Only sessions of this user.")
@click.option("--cluster", metavar="NAME", help="Only sessions in this cluster.")
@click.option("--since", metavar="TIME", help="Only sessions that began within this time, such as 2h or 7d.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "name"]), help="Print documents or ids.")
@pass_app
def list_recordings(app: App, user: str | None, cluster: str | None, since: str | None, output: str | None) -> None:
    """List sessions, the newest first."""
    from services.cli.recording import ROOT, describe_end

    query = {key: value for key, value in (("user", user), ("cluster", cluster)) if value}
    if since:
        query["since"] = format_moment(datetime.now(UTC) - timedelta(seconds=parse_duration(since)))
    with app.hub() as hub:
        answer = hub.get(ROOT, query)
    items = answer.get("items") or []
    if output == "name":
        for item in items:
            click.echo(item["facts"]["id"])
    elif output:
        out.print_document(answer, output)
    elif not items:
        out.note("no recorded sessions")
    else:
        rows = []
        for item in items:
            facts, outcome = item["facts"], item.get("outcome")
            command = " ".join(facts["command"]) if facts["action"] == "exec" else "(attach)"
            took = format_elapsed(outcome["durationMs"] / 1000) if outcome else ""
            pod = f"{facts['namespace']}/{facts['pod']}"
            who = f"{facts['user']} as {facts['actingAs']}" if facts.get("actingAs") else facts["user"]
            rows.append([facts["id"], who, facts["cluster"], pod, command, took, describe_end(item)])
        click.echo(out.render_table(COLUMNS, rows))


@recordings.command()
@_ID
@click.option("--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="How fast.")
@click.option("--max-idle", metavar="TIME", help="Wait no longer than this where nothing happens, such as 2s.")
@click.option("--no-timing", is_flag=True, help="Print it at once.")
@pass_app
def play(app: App, id_: str, speed: float, max_idle: str | None, no_timing: bool) -> None:
    """Play a session in this terminal. Ctrl-C ends it.

    What a program in the session could use against your terminal is left out: clipboard, title, keyboard and queries.
    """
    from services.cli.player import play as play_events

    max_idle_s = parse_duration(max_idle) if max_idle else None
    with fetch(app, id_) as recording:
        play_events(recording.events(), speed=speed, max_idle_s=max_idle_s, timing=not no_timing)
        tell_end(recording)


@recordings.command()
@_ID
@click.option("--format", "form", type=click.Choice(["asciicast"]), default="asciicast", show_default=True)
@click.option("--raw", is_flag=True, help="Leave in what could be used against a viewer's terminal.")
@click.option("--output", "file", type=click.Path(dir_okay=False, path_type=Path), help="A file instead of stdout.")
@pass_app
def export(app: App, id_: str, form: str, raw: bool, file: Path | None) -> None:
    """Write a session as an asciicast v2 file, which other players play."""
    from libs.common.recording.asciicast import render

    del form  # the only one there is
    with fetch(app, id_) as recording:
        events = recording.events() if raw else _harmless(recording)
        lines = render(recording.facts, recording.started, events)
        if file is None:
            sys.stdout.writelines(lines)
        else:
            with file.open("w", encoding="utf-8") as target:
                file.chmod(0o600)
                target.writelines(lines)
        tell_end(recording)


@recordings.command()
@_ID
@pass_app
def verify(app: App, id_: str) -> None:
    """Check that a session is whole and as it was written; exit code 1 where it is not."""
    from services.cli.hub import segment
    from services.cli.recording import ROOT, describe_end

    with app.hub() as hub:
        document = hub.get(f"{ROOT}/{segment(id_)}")
    check = document["check"]
    if check["problem"]:
        raise errors.Conflict(f"recording {id_} is not genuine: {check['problem']}")
    if not document.get("outcome"):
        raise errors.Conflict(
            f"recording {id_} is unfinished: its {check['messages']} messages are genuine, the end is missing"
        )
    click.echo(f"recording {id_} is whole and genuine: {check['messages']} messages, {describe_end(document)}")


def fetch(app: App, id_: str) -> Recording:
    from services.cli.recording import Recording

    with app.hub() as hub:
        return Recording(hub, id_)


def tell_end(recording: Recording) -> None:
    """On stderr: how it ended. Raises Conflict where what was shown is not all, or can't be trusted."""
    from services.cli.recording import describe_end

    if recording.problem:
        raise errors.Conflict(f"the recording is not genuine from here on: {recording.problem}")
    end = describe_end(recording.document)
    outcome = recording.document.get("outcome") or {}
    message = out.printable(str(outcome.get("message") or ""))
    if end == "unfinished":
        out.note("unfinished: the session runs still, or the recording was lost at this point")
    else:
        out.note(f"{end}{f': {message}' if message else ''}")


def _harmless(recording: Recording) -> Iterator[Event]:
    from libs.common.recording.events import OUTPUTS
    from libs.common.recording.screen import Screen

    screens = {channel: Screen() for channel in OUTPUTS}
    for at_s, channel, data in recording.events():
        screen = screens.get(channel)
        yield at_s, channel, data if screen is None else screen.feed(data).encode()
