"""The audit log of this process: raw events in, batches on disk, then in JetStream; and what happens when there is no room.

`calls` writes raw events, which costs no more than putting them into a queue. A few times a second they become signed batches in the spool
(`audit_writer`, in a thread); from there they are published one after the other. What is in the spool outlives the process. When there is
no room for more, new calls are refused, or events are dropped, counted and the gap is written down: `audit_when_full`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common import errors
from libs.common.audit.event import RawEvent, Recordable, format_micro, render_record
from libs.common.audit.policy import Decision
from libs.common.audit.request import RequestInfo
from libs.common.bus.jetstream_api import WrongSequence
from libs.common.bus.journal import Journal
from libs.common.contracts import subjects
from libs.common.relay.session import Session
from services.auth_proxy.audit_figures import AuditFigures
from services.auth_proxy.audit_writer import BATCH_EVENTS, Writer

log = structlog.get_logger(component="audit")
T = TypeVar("T")
WhenFull = Literal["refuse", "drop"]
FLUSH_S = 0.2
"""How long an event waits for others at most. With the time of one write it is what a killed process loses."""
ALIVE_S = 60.0
QUEUE_SOFT = 20_000
QUEUE_BYTES = 64 * 1024 * 1024
"""Callers choose how long their heads are."""
QUEUE_HARD = 80_000
"""Calls that were let in before the queue was full end, too: each has at most three events."""
MALFORMED_PER_S = 10
MALFORMED = RequestInfo("malformed", "")
MALFORMED_NUMBERS = 1 << 47
"""Where the numbers of requests that are no calls begin: far beyond those of calls, in the twelve digits that an audit id has."""
_TAKE = 2000
_RETRY_S = 0.5
_MAX_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class AuditSettings:
    folder: Path
    spool_bytes: int = 256 * 1024 * 1024
    when_full: WhenFull = "refuse"
    file: Path | None = None
    replicas: int = 1


class AuditLog:
    """`run` and `publish` are its two tasks; `close` ends the chain. Invariant: an event that was taken is written, or counted as lost."""

    def __init__(
        self, settings: AuditSettings, key: Ed25519PrivateKey, journal: Journal, figures: AuditFigures,
        now: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._journal = journal
        self._figures = figures
        self._now = now
        self._writer = Writer(settings.folder, key, settings.file, now)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._queue: deque[Recordable] = deque()
        self._queue_bytes = 0
        self._wake = asyncio.Event()
        self._to_publish = asyncio.Event()
        self._all_stored = asyncio.Event()
        self._writing = asyncio.Lock()
        self._full = ""
        self._full_since = 0.0
        self._disk_error = ""
        self._spool_full = False
        self._lost = 0
        self._refused = 0
        self._closed = False
        self._alarmed = False
        self._last_batch_at = 0.0
        self._written_at: deque[float] = deque()
        self._malformed_from = 0.0
        self._malformed_room = 0
        self._malformed_more = 0
        self._malformed_numbers = itertools.count(MALFORMED_NUMBERS)
        figures.follow(lambda: self._writer.pending_bytes, self._lag_s, lambda: len(self._queue))

    # the path of calls

    def write(self, event: Recordable) -> None:
        """Take one event; never waits."""
        queue = self._queue
        if self._full and (self._settings.when_full == "drop" or len(queue) >= QUEUE_HARD):
            self._lose(event)
            return
        queue.append(event)
        self._queue_bytes += event.weight
        if len(queue) >= BATCH_EVENTS or self._queue_bytes >= QUEUE_BYTES:
            if not self._full and self._is_queue_full:
                self._set_full(self._why_waiting())
            self._wake.set()

    def check_room(self) -> None:
        """Before a new call is let in. Raises Unavailable when what it does could not be written down."""
        if self._full and self._settings.when_full == "refuse":
            self._refused += 1
            self._figures.refused.inc()
            raise errors.Unavailable(
                f"the audit log takes no more ({self._full}), and no call is let in that leaves no trace",
                retry_after_s=1,
            )

    def malformed(self, session: Session, error: errors.HerdsmanError) -> None:
        """A request that could not be read: an event with the peer and the reason, a few a second, the others counted in it."""
        self._figures.malformed.inc()
        moment = self._now()
        if moment >= self._malformed_from:
            self._malformed_from, self._malformed_room = moment + 1.0, MALFORMED_PER_S
        if not self._malformed_room:
            self._malformed_more += 1
            return
        self._malformed_room -= 1
        more, self._malformed_more = self._malformed_more, 0
        event = RawEvent(
            "ResponseComplete", next(self._malformed_numbers), moment, moment, MALFORMED, b"", session.peer, b"", None, frozenset(), "", "",
            Decision("Metadata"), error.http_status,
        )  # fmt: skip
        event.refused = True
        event.reason = error.reason
        event.error = error.message + (f" (and {more} more such requests that have no event)" if more else "")
        self.write(event)

    @property
    def full(self) -> str:
        """Why there is no room; empty = there is."""
        return self._full

    @property
    def chain(self) -> str:
        return self._writer.chain

    # its life

    async def start(self) -> None:
        """Begin the chain and take up what earlier processes left. Raises Unavailable when the folder can't be used."""
        try:
            await self._in_thread(self._writer.start)
        except OSError as exc:
            raise errors.Unavailable(
                f"the audit log cannot begin in {self._settings.folder}: {exc.strerror or exc}"
            ) from exc
        self._noted(1)

    async def run(self) -> None:
        """Make batches of what came, for ever."""
        while True:
            try:
                async with asyncio.timeout(_RETRY_S if self._disk_error else FLUSH_S):
                    await self._wake.wait()
            except TimeoutError:
                self._wake.clear()
            else:
                self._wake.clear()
                if self._full:
                    # Woken again and again by a full queue that nobody may empty: keep the pace all the same.
                    await asyncio.sleep(FLUSH_S)
            async with self._writing:
                if not self._closed:
                    await self._write_out()

    async def publish(self) -> None:
        """Bring what is in the spool into the stream, in order, for ever."""
        pause_s, made = 0.1, False
        while True:
            spool = await self._in_thread(self._writer.next_spool)
            if spool is None:
                await self._in_thread(self._writer.tidy)
                self._to_publish.clear()
                if await self._in_thread(self._writer.next_spool) is None:
                    self._all_stored.set()
                    await self._to_publish.wait()
                continue
            try:
                if not made:
                    await self._journal.ensure(self._settings.replicas)
                    made = True
                _, message = await self._in_thread(spool.read_first)
                try:
                    sequence = await self._journal.append(subjects.audit(spool.chain), message, after=spool.after)
                except WrongSequence as exc:
                    if exc.last <= spool.after:
                        # The stream is not the one that it was: what it had is gone, and the verification will miss it.
                        log.error("audit_stream_replaced", chain=spool.chain, expected=spool.after, found=exc.last)
                        spool.rewind(exc.last)
                        continue
                    sequence = exc.last  # it was stored, and the answer was lost
                await self._in_thread(spool.stored, sequence)
            except (errors.HerdsmanError, OSError) as exc:
                made = False
                self._alarm(str(exc))
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, _MAX_PAUSE_S)
                continue
            pause_s = 0.1
            if self._written_at:
                self._written_at.popleft()
            self._recovered()
            self._judge()

    async def close(self, timeout_s: float) -> None:
        """Write down what came, end the chain, and publish as much as the time allows; the rest lies in the spool for the next start."""
        async with self._writing:
            self._closed = True
            while self._queue:
                if not await self._write_some():
                    break
            if not self._disk_error and not await self._write_some(ends=True):
                log.error("audit_end_not_written", waiting=len(self._queue), error=self._disk_error)
        self._all_stored.clear()
        self._to_publish.set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_stored.wait()
        except TimeoutError:
            log.warning("audit_rest_in_spool", bytes=self._writer.pending_bytes)

    def release(self) -> None:
        """After the tasks have ended: close the files."""
        self._thread.submit(self._writer.close)
        self._thread.shutdown(wait=True)

    # inside

    async def _write_out(self) -> None:
        """One round: all that came, as long as there is room."""
        if self._disk_error:
            await self._flush()
        while self._queue and not self._disk_error and not self._spool_full:
            if not await self._write_some():
                break
            self._judge()
        if not self._disk_error and not self._queue and self._now() - self._last_batch_at > ALIVE_S:
            await self._write_some(alive=True)
        self._judge()

    async def _write_some(self, *, ends: bool = False, alive: bool = False) -> bool:
        """Up to so many events into batches on disk. False: the disk did not take them, they wait in memory."""
        queue = self._queue
        taken = [queue.popleft() for _ in range(min(_TAKE, len(queue)))]
        self._queue_bytes -= sum(event.weight for event in taken)
        records = self._gap()
        if alive:
            records.append(render_record("alive", self._now()))
        if not (taken or records or ends):
            return True
        try:
            batches = await self._in_thread(lambda: self._writer.write(taken, records, ends=ends))
        except OSError as exc:
            self._disk_failed(exc)
            return False
        finally:
            for event in taken:
                if event.bodies is not None:
                    event.bodies.release()
        self._figures.written.inc(len(taken))
        self._noted(batches)
        return True

    async def _flush(self) -> None:
        try:
            batches = await self._in_thread(self._writer.flush)
        except OSError as exc:
            self._disk_failed(exc)
            return
        self._disk_error = ""
        self._noted(batches)

    def _noted(self, batches: int) -> None:
        self._last_batch_at = self._now()
        self._written_at.extend([self._last_batch_at] * batches)
        self._to_publish.set()

    def _gap(self) -> list[bytes]:
        """What was lost since the last batch, as a line of the chain."""
        if not (self._lost or self._refused) or self._full:
            return []
        lost, refused, self._lost, self._refused = self._lost, self._refused, 0, 0
        return [
            render_record(
                "gap", self._now(), lost=lost, refused=refused, since=format_micro(self._full_since), why="the audit log was full"
            )
        ]  # fmt: skip

    def _lose(self, event: Recordable) -> None:
        self._lost += 1
        self._figures.dropped.inc()
        if event.bodies is not None:
            event.bodies.release()

    def _judge(self) -> None:
        """Is there room? With some distance between no and yes again, so that it does not flicker."""
        pending, limit = self._writer.pending_bytes, self._settings.spool_bytes
        self._spool_full = pending >= limit or (self._spool_full and pending > limit * 0.9)
        if self._disk_error:
            # A full disk alone is no reason to cut everybody off: memory holds the events of many calls meanwhile.
            if self._is_queue_full:
                self._set_full(self._why_waiting())
        elif self._spool_full:
            self._set_full(f"the bus does not take it, and the {limit} bytes set aside for that are used up")
        elif self._full and len(self._queue) < QUEUE_SOFT // 2 and self._queue_bytes < QUEUE_BYTES // 2:
            log.info("audit_has_room_again", lost=self._lost, refused=self._refused)
            self._full = ""
            self._wake.set()

    def _set_full(self, why: str) -> None:
        if not self._full:
            self._full_since = self._now()
            log.error("audit_full", reason=why, then=self._settings.when_full)
        self._full = why

    @property
    def _is_queue_full(self) -> bool:
        return len(self._queue) >= QUEUE_SOFT or self._queue_bytes >= QUEUE_BYTES

    def _why_waiting(self) -> str:
        if self._disk_error:
            return f"its spool cannot be written: {self._disk_error}"
        return "events come faster than they can be written"

    def _disk_failed(self, exc: OSError) -> None:
        if not self._disk_error:
            log.error(
                "audit_spool_failed",
                error=exc.strerror,
                then=f"events wait in memory, up to {QUEUE_SOFT} or {QUEUE_BYTES // 2**20} MiB",
            )
        self._disk_error = exc.strerror or str(exc)
        self._judge()

    def _alarm(self, why: str) -> None:
        if not self._alarmed:
            self._alarmed = True
            log.error("audit_not_stored", error=why, advice="events wait in the spool until the bus takes them")

    def _recovered(self) -> None:
        if self._alarmed:
            self._alarmed = False
            log.info("audit_stored_again", waiting_bytes=self._writer.pending_bytes)

    def _lag_s(self) -> float:
        return max(0.0, self._now() - self._written_at[0]) if self._written_at else 0.0

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
