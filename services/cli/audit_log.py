"""The audit log from this side: pages from the hub, exported files, and the verification of both. Used by `commands.audit`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.common import errors
from libs.common.audit.chain import SEAL, BadBatch, Seal, parse_seal
from libs.common.audit.verify import LogVerifier
from services.cli import resources
from services.cli.hub import Document, Hub
from services.cli.output import printable

PATH = f"/apis/{resources.API_VERSION}/auditevents"
PAGE = 2000
_PREFIX = "audit.herdsman.dev/"


@dataclass(slots=True)
class Page:
    """Lines without the last one, which says where to go on: `next` is where the next page begins, `more` whether it has anything."""

    lines: list[bytes]
    next: str
    more: bool
    first: int
    last: int


def read_page(hub: Hub, query: Mapping[str, str], start: str) -> Page:
    """One page. Raises a family of `libs.common.errors`."""
    asked = {**query, "limit": str(PAGE), **({"continue": start} if start else {})}
    lines = hub.fetch("GET", PATH, query=asked).splitlines()
    try:
        end: Document = json.loads(lines[-1]) if lines else {}
    except ValueError:
        end = {}
    if end.get("kind") != "AuditPage":
        raise errors.Unavailable("the hub's answer was cut: try again")
    return Page(
        lines[:-1], str(end["next"]), bool(end["continue"]), int(end["firstSequence"]), int(end["lastSequence"])
    )


def read_pages(hub: Hub, query: Mapping[str, str], start: str = "") -> Iterator[Page]:
    """All pages up to the end of the log."""
    while True:
        page = read_page(hub, query, start)
        yield page
        if not page.more:
            return
        start = page.next


def verify_lines(verifier: LogVerifier, lines: Iterable[bytes], where: str) -> None:
    """Feed an export, or a page with seals: each seal is followed by the lines of its batch. Lines outside of any batch are broken."""
    seal: Seal | None = None
    batch: list[bytes] = []
    number = begin = 0

    def close() -> None:
        if seal is not None:
            verifier.feed(seal, batch, f"{where} {begin}")

    for number, line in enumerate(lines, 1):
        kind = line[:64]
        if b'"kind":"' + SEAL.encode() in kind or b'"kind":"BadBatch"' in kind:
            close()
            seal, batch, begin = None, [], number
            try:
                document = json.loads(line)
                if document["kind"] != SEAL:
                    raise BadBatch(str(document.get("problem")))
                seal = parse_seal(document["header"].encode("ascii"), document["signature"].encode("ascii"))
            except (ValueError, KeyError, AttributeError) as exc:
                verifier.malformed(f"{where} {number}", f"this is no batch: {exc}")
        elif seal is None:
            if line:
                verifier.malformed(f"{where} {number}", "this line belongs to no batch")
        else:
            batch.append(line)
            if len(batch) == seal.count:
                close()
                seal, batch = None, []
    close()


def file_lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        for line in opened:
            yield line.rstrip(b"\n")


def tell_event(event: Document) -> list[str]:
    """One row for a person: time, user, verb, object, cluster, status."""
    reference, notes = event.get("objectRef") or {}, event.get("annotations") or {}
    what = event.get("requestURI", "")
    if reference:
        what = reference.get("resource", "")
        if reference.get("subresource"):
            what += f"/{reference['subresource']}"
        place = "/".join(part for part in (reference.get("namespace"), reference.get("name")) if part)
        what += f" {place}" if place else ""
    user = event["user"].get("username", "")
    reason = notes.get(f"{_PREFIX}reason", "")
    if notes.get(f"{_PREFIX}source"):
        reason = _tell_stated(event, notes)
    other = (event.get("impersonatedUser") or {}).get("username")
    code = str(event["responseStatus"].get("code", ""))
    if event.get("stage") == "ResponseStarted":
        code += "…"
    row = [
        str(event["stageTimestamp"])[:23] + "Z", f"{user} as {other}" if other else user, str(event["verb"]), what[:100],
        notes.get(f"{_PREFIX}cluster", "-"), code, reason[:120],
    ]  # fmt: skip
    # A path is in the log whoever asked for it.
    return [printable(cell) for cell in row]


def _tell_stated(event: Document, notes: Mapping[str, str]) -> str:
    """What a service says of itself: why, how often, at which provider, from where."""
    count, provider = notes.get(f"{_PREFIX}count", ""), notes.get(f"{_PREFIX}provider", "")
    parts = (
        notes.get(f"{_PREFIX}reason", ""), f"{count} times" if count else "", f"at {provider}" if provider else "",
        *(f"from {address}" for address in event.get("sourceIPs") or ()),
    )  # fmt: skip
    return ", ".join(part for part in parts if part)


def now() -> datetime:
    return datetime.now(UTC)


def render_value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
