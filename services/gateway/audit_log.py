"""Reading the audit stream: where a time begins in it, which lines a caller may see and asked for, a page at a time.

Lines go out as the very bytes that were signed, so that whoever gets all of them can verify them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from libs.common import errors
from libs.common.audit.chain import BadBatch, Seal, read_batch
from libs.common.audit.event import PREFIX
from libs.common.bus.journal import Journal

log = structlog.get_logger(component="audit")
Event = Mapping[str, Any]
Sees = Callable[[Event], bool]
_EVENT = b'{"kind":"Event"'
DENIED = (401, 403)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next line to look at: sequence of a message, and the number of a line in it."""

    sequence: int
    line: int = 0

    def __str__(self) -> str:
        return f"{self.sequence}.{self.line}"


def parse_cursor(text: str) -> Cursor:
    """Raises BadRequest."""
    sequence, _, line = text.partition(".")
    if not (sequence.isascii() and sequence.isdigit() and line.isascii() and line.isdigit() and len(text) < 40):
        raise errors.BadRequest("the parameter continue is not one that the hub gave")
    return Cursor(int(sequence), int(line))


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked for. Empty = no limit. `resource` is `pods`, `pods/exec` or `deployments.apps`."""

    since: datetime | None = None
    until: datetime | None = None
    cluster: str | None = None
    user: str = ""
    verb: str = ""
    resource: str = ""
    denied: bool = False
    account: str = ""
    """The user whom an event of identity is about, whoever did it."""

    def fits(self, event: Event) -> bool:
        if self.cluster is not None and event["annotations"].get(f"{PREFIX}cluster", "") != self.cluster:
            return False
        if self.user and event["user"].get("username") != self.user:
            return False
        if self.account and event["annotations"].get(f"{PREFIX}account") != self.account:
            return False
        if self.verb and event["verb"] != self.verb:
            return False
        if self.denied and not (
            event["annotations"].get(f"{PREFIX}decision") == "forbid" or event["responseStatus"].get("code") in DENIED
        ):
            return False
        if self.resource and not self._is_of(event.get("objectRef", {})):
            return False
        if self.since is None and self.until is None:
            return True
        moment = datetime.fromisoformat(event["stageTimestamp"].replace("Z", "+00:00"))
        return (self.since is None or moment >= self.since) and (self.until is None or moment <= self.until)

    def _is_of(self, reference: Mapping[str, str]) -> bool:
        name, _, group = self.resource.partition(".")
        plural, _, subresource = name.partition("/")
        return (
            reference.get("resource") == plural
            and (not group or reference.get("apiGroup", "") == group)
            and (not subresource or reference.get("subresource", "") == subresource)
        )

    @property
    def is_everything(self) -> bool:
        return self == Query()


@dataclass(frozen=True, slots=True)
class Batch:
    """One message of the stream, read. `seal` None: it is no batch, `problem` says why."""

    sequence: int
    seal: Seal | None
    lines: list[bytes]
    problem: str = ""


class AuditLog:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def bounds(self) -> tuple[int, int]:
        """(first, last) sequence; (1, 0) before anything was written down."""
        return await self._journal.bounds()

    async def begin(self, since: datetime | None) -> Cursor:
        """The first message that may hold something of `since` or later: it was stored no earlier. A binary search by time of storing."""
        low, high = await self.bounds()
        if since is None or high < low:
            return Cursor(low)
        high += 1
        while low < high:
            middle = (low + high) // 2
            entry = await self._journal.next(middle)
            if entry is None or entry.stored_at >= since:
                high = middle
            else:
                low = entry.sequence + 1
        return Cursor(low)

    async def batch_at(self, sequence: int) -> Batch | None:
        """The first batch at or after this sequence; None when there is none yet."""
        entry = await self._journal.next(sequence)
        if entry is None:
            return None
        try:
            seal, lines = read_batch(entry.data)
        except BadBatch as exc:
            log.error("audit_batch_unreadable", sequence=entry.sequence, error=str(exc))
            return Batch(entry.sequence, None, [], str(exc))
        return Batch(entry.sequence, seal, lines)

    async def batches(self, cursor: Cursor) -> AsyncGenerator[tuple[Batch, int]]:
        """Batches from a cursor on, each with the number of its first line to look at; ends at the end of the stream."""
        sequence, line = cursor.sequence, cursor.line
        while (batch := await self.batch_at(sequence)) is not None:
            yield batch, line if batch.sequence == sequence else 0
            sequence, line = batch.sequence + 1, 0


def choose(line: bytes, query: Query, sees: Sees | None) -> bool:
    """Whether a line is an event that was asked for and that the caller may see; `sees` None = all of them."""
    if not line.startswith(_EVENT):
        return False
    if sees is None and query.is_everything:
        return True
    event = json.loads(line)
    return (sees is None or sees(event)) and query.fits(event)
