"""`herdsman audit`: who did what. Reads through the hub's API, which writes that down, too."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from libs.common import errors
from services.cli import audit_log as log
from services.cli import output as out
from services.cli.app import App, pass_app
from services.cli.durations import parse_duration
from services.cli.hub import Hub

EXIT_BROKEN, EXIT_GAPS = 1, 6
_COLUMNS = "{:<24} {:<20} {:<10} {:<16} {:>5} {} {}"


@click.group()
def audit() -> None:
    """See, export and verify who did what.

    You see everything with the global role auditor or admin, and the calls to your own clusters as their owner.
    """


def _moment(text: str | None) -> str | None:
    """A time, or how long ago. Raises BadParameter."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        moment = log.now() - timedelta(seconds=parse_duration(text))
    if moment.tzinfo is None:
        raise click.BadParameter(f'"{text}" does not say its time zone: write 2026-01-02T15:04:05Z')
    return moment.isoformat()


@audit.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--cluster", help='Only calls to this cluster; "" for the hub\'s own API.')
@click.option("--user", help="Only calls of this user.")
@click.option(
    "--account", help="Only what has to do with letting in this user, whoever did it: sign-ins, refusals, tokens."
)
@click.option("--verb", help="Only this verb: get, create, delete, sign-in, revoke-token and so on.")
@click.option("--resource", help="Only this resource: pods, pods/exec, deployments.apps.")
@click.option("--since", default="15m", show_default=True, help="From this time, or so long ago.")
@click.option("--denied", is_flag=True, help="Only calls that were refused.")
@click.option("-o", "--output", "output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@pass_app
def tail(
    app: App, follow: bool, cluster: str | None, user: str | None, account: str | None, verb: str | None, resource: str | None, since: str,
    denied: bool, output: str,
) -> None:  # fmt: skip
    """Show the last calls.

    \b
    Examples:
      herdsman audit tail --follow --cluster prod
      herdsman audit tail --denied --since 1d
      herdsman audit tail --account ana --since 7d
      herdsman audit tail --user ana --resource pods/exec -o json
    """
    query = {
        "user": user,
        "account": account,
        "verb": verb,
        "resource": resource,
        "denied": "true" if denied else None,
        "since": _moment(since),
    }
    asked = {name: value for name, value in query.items() if value}
    if cluster is not None:
        asked["cluster"] = cluster
    if output == "table":
        click.echo(_COLUMNS.format("TIME", "USER", "VERB", "CLUSTER", "CODE", "OBJECT", ""))
    start = ""
    with app.hub() as hub:
        for page in log.read_pages(hub, asked):
            for line in page.lines:
                _show(json.loads(line), output)
            start = page.next
        while follow:
            start = _follow(hub, {**asked, "continue": start}, output)
            time.sleep(0.5)


def _follow(hub: Hub, query: dict[str, str], output: str) -> str:
    """One watch to its end; where to go on."""
    start = query["continue"]
    for event in hub.watch(log.PATH, query, timeout_s=3000):
        if event.get("kind") == "AuditPage":
            start = str(event["next"])
        elif event.get("kind") == "Status":
            raise errors.Denied(str(event.get("message")))
        else:
            _show(event, output)
    return start


def _show(event: dict[str, Any], output: str) -> None:
    if output == "json":
        click.echo(log.render_value(event))
        return
    moment, user, verb, what, cluster, code, reason = log.tell_event(event)
    click.echo(_COLUMNS.format(moment, user, verb, cluster, code, what, f"({reason})" if reason else "").rstrip())


@audit.command()
@click.option("--since", help="From this time, or so long ago; default: all that is kept.")
@click.option("--until", help="Up to this time, or so long ago; default: now.")
@click.option(
    "--output", "file", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file to write."
)
@pass_app
def export(app: App, since: str | None, until: str | None, file: Path) -> None:
    """Write the log into a file, a JSON line for each event.

    With the right to all events the file also holds the seals, and "herdsman audit verify FILE" can verify it. An export that broke off
    is taken up again by the same command; what is there already is not fetched again.
    """
    asked = {"since": since or "", "until": until or ""}
    resume = file.with_name(file.name + ".resume")
    state = _resume(file, resume, asked)
    if state is None:
        query = {"until": _moment(until) or log.now().isoformat(), "seals": "true"}
        if since:
            query["since"] = str(_moment(since))
        state = {"asked": asked, "query": query, "next": "", "size": 0, "events": 0}
    with app.hub() as hub:
        if not state["next"]:
            _settle_seals(hub, state["query"])
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            target.truncate(state["size"])
            target.seek(state["size"])
            for page in log.read_pages(hub, state["query"], state["next"]):
                target.writelines(line + b"\n" for line in page.lines)
                target.flush()
                state["size"] = target.tell()
                state["events"] += sum(line.startswith(b'{"kind":"Event"') for line in page.lines)
                state["next"] = page.next
                resume.write_text(json.dumps(state), encoding="utf-8")
                _progress(page, state["events"])
    resume.unlink(missing_ok=True)
    out.note(f"{state['events']} events are in {file}")


def _resume(file: Path, resume: Path, asked: dict[str, str]) -> dict[str, Any] | None:
    """Where an earlier export with the same wish broke off. Raises Invalid when the file belongs to something else."""
    try:
        state: dict[str, Any] = json.loads(resume.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if file.exists():
            raise errors.Invalid(f"{file} is there already: choose another name or delete it") from None
        return None
    except ValueError as exc:
        raise errors.Invalid(f"{resume} cannot be read: delete it and {file}, and begin again") from exc
    if state.get("asked") != asked or not file.exists() or file.stat().st_size < state.get("size", 0):
        raise errors.Invalid(f"{file} is from another export that broke off: delete it and {resume}")
    return state


def _settle_seals(hub: Hub, query: dict[str, str]) -> None:
    """Whoever may read only some clusters gets their events without seals."""
    try:
        log.read_page(hub, {**query, "limit": "1"}, "")
    except errors.Denied:
        del query["seals"]
        log.read_page(hub, {**query, "limit": "1"}, "")
        out.note("without the right to all events the file holds those of your clusters, and cannot be verified")


def _progress(page: log.Page, events: int) -> None:
    if sys.stderr.isatty():
        done = int(page.next.partition(".")[0]) - page.first
        share = min(100, 100 * done // max(1, page.last - page.first + 1))
        click.echo(f"\r{events} events, {share} %", nl=not page.more, err=True)


@audit.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--since", help="From this time, or so long ago; default: all that is kept.")
@click.option(
    "--public-key", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The hub's public identity key, kept apart from the hub; default: the hub is asked for it.",
)  # fmt: skip
@pass_app
def verify(app: App, file: Path | None, since: str | None, public_key: Path | None) -> int:
    """Verify that nothing was changed, left out, doubled or moved: of the hub's log, or of an exported FILE.

    \b
    Exit codes: 0 whole, 1 broken: somebody tampered with it, 6 gaps: events are missing, and the log itself says why.
    """
    import hashlib

    from libs.common.audit.chain import load_public_key
    from libs.common.audit.verify import LogVerifier

    if public_key is not None:
        pem = public_key.read_bytes()
    else:
        with app.hub() as hub:
            pem = hub.fetch("GET", "/v1/audit/key")
    try:
        verifier = LogVerifier(load_public_key(pem), partial=bool(since))
    except ValueError as exc:
        raise errors.Invalid(f"{public_key or 'the hub'} gave no public key: {exc}") from exc
    if file is not None:
        verifier.partial = True
        log.verify_lines(verifier, log.file_lines(file), "line")
        findings = verifier.finish()
    else:
        query = {"seals": "true", **({"since": str(_moment(since))} if since else {})}
        with app.hub() as hub:
            for number, page in enumerate(log.read_pages(hub, query), 1):
                verifier.partial = verifier.partial or page.first > 1
                log.verify_lines(verifier, page.lines, f"page {number} line")
        findings = verifier.finish(log.now())
    for finding in findings:
        out.note(f"{finding.severity}: {f'chain {finding.chain} ' if finding.chain else ''}{finding.text}")
    fingerprint = hashlib.sha256(pem.strip()).hexdigest()[:16]
    click.echo(
        f"{verifier.events} events in {verifier.batches} batches of {len(verifier.chains)} chains, key {fingerprint}: "
        + {"broken": "BROKEN", "gap": "whole, with gaps that it tells of itself", "note": "whole"}[verifier.worst]
    )
    return {"broken": EXIT_BROKEN, "gap": EXIT_GAPS, "note": 0}[verifier.worst]
