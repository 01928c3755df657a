"""A stream that is only ever appended to and read by sequence: what the audit log is kept in.

`NatsJournal` is JetStream, `MemoryJournal` its double (`tests/bus/test_journal.py` and `integration/nats` run the same promises on both).
Reading asks for one message after the other: whoever reads keeps nothing open at the server and may go on anywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.bus.jetstream_api import (
    EXPECTED_SEQUENCE,
    STREAM_EXISTS,
    STREAM_NOT_FOUND,
    JetStreamApi,
    Refused,
    WrongSequence,
)
from libs.common.bus.nats import NatsBus
from libs.common.bus.streams import StreamSpec


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """`stored_at` is the server's clock."""

    sequence: int
    subject: str
    data: bytes
    stored_at: datetime


class Journal(Protocol):
    """Raises Unavailable and Timeout for whatever may pass; Refused(again=False) when the server has no room."""

    async def ensure(self, replicas: int = 1) -> None:
        """Make the stream if it isn't there. One that is there stays as it is: changing it is an administrator's business."""
        ...

    async def append(self, subject: str, data: bytes, *, after: int, timeout_s: float = 5.0) -> int:
        """Store one message if `after` is the sequence of the last one with this subject (0: there is none); its sequence.

        Raises WrongSequence when it isn't: then nothing was stored by this call.
        """
        ...

    async def bounds(self) -> tuple[int, int]:
        """(first, last) sequence that is kept; (n, n - 1) when empty, also while there is no stream yet."""
        ...

    async def next(self, sequence: int) -> JournalEntry | None:
        """The first message at or after `sequence`; None when there is none yet."""
        ...


class NatsJournal:
    """On JetStream."""

    def __init__(self, api: JetStreamApi, spec: StreamSpec) -> None:
        self._api = api
        self._spec = spec

    async def ensure(self, replicas: int = 1) -> None:
        try:
            await self._api.call(f"STREAM.INFO.{self._spec.name}")
        except Refused as exc:
            if exc.code != STREAM_NOT_FOUND:
                raise
            try:
                await self._api.call(f"STREAM.CREATE.{self._spec.name}", self._spec.to_config(replicas), 5.0)
            except Refused as raced:
                if raced.code != STREAM_EXISTS:
                    raise

    async def append(self, subject: str, data: bytes, *, after: int, timeout_s: float = 5.0) -> int:
        return await self._api.publish(subject, data, {EXPECTED_SEQUENCE: str(after)}, timeout_s)

    async def bounds(self) -> tuple[int, int]:
        try:
            info = await self._api.call(f"STREAM.INFO.{self._spec.name}")
        except Refused as exc:
            if exc.code == STREAM_NOT_FOUND:
                return 1, 0
            raise
        return int(info["state"]["first_seq"]), int(info["state"]["last_seq"])

    async def next(self, sequence: int) -> JournalEntry | None:
        try:
            answer = await self._api.call(
                f"STREAM.MSG.GET.{self._spec.name}", {"seq": max(sequence, 1), "next_by_subj": ">"}, 5.0
            )
        except errors.NotFound:
            return None
        except Refused as exc:
            if exc.code == STREAM_NOT_FOUND:
                return None
            raise
        found = answer["message"]
        return JournalEntry(
            int(found["seq"]),
            str(found["subject"]),
            base64.b64decode(found.get("data") or ""),
            parse_stored_at(str(found["time"])),
        )


class MemoryJournal:
    """In a list. Not imitated: sizes, ages, replicas. `refuse` answers for the server when set; `lose_answers` stores and then fails."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.entries: list[JournalEntry] = []
        self.refuse: errors.HerdsmanError | None = None
        self.lose_answers = 0
        self._now = now

    async def ensure(self, replicas: int = 1) -> None:
        self._check()

    async def append(self, subject: str, data: bytes, *, after: int, timeout_s: float = 5.0) -> int:
        self._check()
        last = next((e.sequence for e in reversed(self.entries) if e.subject == subject), 0)
        if last != after:
            raise WrongSequence(last)
        sequence = self.entries[-1].sequence + 1 if self.entries else 1
        self.entries.append(JournalEntry(sequence, subject, bytes(data), self._now()))
        if self.lose_answers:
            self.lose_answers -= 1
            raise errors.Timeout("no answer came in time")
        return sequence

    async def bounds(self) -> tuple[int, int]:
        self._check()
        return (self.entries[0].sequence, self.entries[-1].sequence) if self.entries else (1, 0)

    async def next(self, sequence: int) -> JournalEntry | None:
        self._check()
        return next((e for e in self.entries if e.sequence >= sequence), None)

    def _check(self) -> None:
        if self.refuse is not None:
            raise self.refuse


def open_journal(bus: Bus, spec: StreamSpec) -> Journal:
    """The journal behind a bus: JetStream of a NATS connection, or the one that a memory bus keeps."""
    if isinstance(bus, NatsBus):
        return NatsJournal(JetStreamApi(bus.connection), spec)
    journals: dict[str, MemoryJournal] = getattr(bus, "journals")  # noqa: B009 - the double has it, the contract doesn't
    return journals.setdefault(spec.name, MemoryJournal())


def parse_stored_at(text: str) -> datetime:
    """RFC 3339 with up to nine decimals, as the server writes it."""
    head, dot, rest = text.partition(".")
    if dot:
        digits = rest.rstrip("Z")[:6]
        return datetime.fromisoformat(f"{head}.{digits.ljust(6, '0')}+00:00")
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
