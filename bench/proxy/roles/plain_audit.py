"""The audit of the aiohttp contestant: a JSON line for each call, written in batches beside the loop. Less than what the front door does
(no policy, no hashes, no signatures, no bus), so the comparison favours the contestant.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Protocol

import structlog

log = structlog.get_logger(component="audit")
_FLUSH_S = 0.5
_MAX_QUEUED = 50_000
_MAX_PATH = 512


@dataclass(slots=True)
class Record:
    """One call. `status` 0 = it ended before an answer; `bytes_in`, `bytes_out` are of bodies and streams."""

    user: str
    user_uid: str
    token: str
    cluster: str
    verb: str
    method: str
    path: str
    status: int
    bytes_in: int
    bytes_out: int
    duration_ms: float
    client: str
    error: str


_FIELDS = tuple(f.name for f in fields(Record))
_encode = json.JSONEncoder(check_circular=False).encode


class AuditSink(Protocol):
    def write(self, record: Record) -> None:
        """Take one record; never waits."""
        ...


class LogAudit:
    """JSON lines to a file or to standard error, written in batches beside the loop. Full queue: the oldest go, counted and logged.

    What cannot be written now, as on a full disk, waits in the queue; a batch that was cut is written again from its start.
    """

    def __init__(self, file: Path | None, now: Callable[[], datetime]) -> None:
        self._file = file
        self._now = now
        self._queue: deque[tuple[float, Record]] = deque(maxlen=_MAX_QUEUED)
        self.dropped = 0
        self._failing = False

    def write(self, record: Record) -> None:
        if len(self._queue) == _MAX_QUEUED:
            self.dropped += 1
        self._queue.append((self._now().timestamp(), record))

    async def run(self) -> None:
        """Write what came, twice a second, for ever; at the end write the rest."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_S)
                if self._queue:
                    await asyncio.to_thread(self._write_out)
        finally:
            self._write_out()

    def _write_out(self) -> None:
        lines, taken = [], []
        while self._queue:
            moment, record = self._queue.popleft()
            taken.append((moment, record))
            entry = {"event": "call_ended", "time": round(moment, 3)}
            entry.update((name, getattr(record, name)) for name in _FIELDS)
            entry["path"] = record.path[:_MAX_PATH]
            lines.append(_encode(entry) + "\n")
        dropped, self.dropped = self.dropped, 0
        if dropped:
            log.error("audit_records_dropped", records=dropped)
        text = "".join(lines)
        try:
            if self._file is None:
                _write_whole(sys.stderr.fileno(), text, after_cut=self._failing)
            else:
                descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                try:
                    _write_whole(descriptor, text, after_cut=self._failing)
                finally:
                    os.close(descriptor)
        except OSError as exc:
            room = _MAX_QUEUED - len(self._queue)
            self.dropped += max(0, len(taken) - room)
            self._queue.extendleft(reversed(taken[max(0, len(taken) - room) :]))
            if not self._failing:
                log.error("audit_write_failed", file=str(self._file), waiting=len(taken), error=exc.strerror)
            self._failing = True
        else:
            self._failing = False


def _write_whole(descriptor: int, text: str, *, after_cut: bool) -> None:
    """All of it, on a line of its own where the last write may have left half of one. Raises OSError."""
    data = (b"\n" if after_cut else b"") + text.encode()
    while data:
        data = data[os.write(descriptor, data) :]
