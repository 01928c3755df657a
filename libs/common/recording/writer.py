"""One session's way to the stream: collected for a second or 64 KiB, sealed, appended, and only then forgotten here.

Nothing waits in the session's own path. What can't be stored for `PATIENCE_S`, or is more than `MAX_WAITING` bytes, ends the
recording with an error, and whoever owns the session ends that too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import structlog

from libs.common import errors
from libs.common.bus.jetstream_api import Refused
from libs.common.recording.chain import Message, Sealer
from libs.common.recording.events import RESIZE, Event
from libs.common.recording.log import RecordingLog
from libs.common.recording.model import Facts, Outcome

log = structlog.get_logger(component="recording")
CHUNK_BYTES = 64 * 1024
FLUSH_S = 1.0
HOLD_BYTES = 256 * 1024
"""From here on the session is read no further until half of it is stored."""
MAX_WAITING = 1024 * 1024
PATIENCE_S = 5.0
_PAUSE_S = 0.2
_EVENT_BYTES = 16
"""What an event costs beside its data."""


class Writer:
    """`hold(True)` asks to be given no more for now, `hold(False)` takes it back; `failed` is told once, at the end of all patience."""

    def __init__(
        self, stream: RecordingLog, sealer: Sealer, *, hold: Callable[[bool], None], failed: Callable[[errors.HerdsmanError], None]
    ) -> None:  # fmt: skip
        self._stream = stream
        self._sealer = sealer
        self._hold = hold
        self._failed = failed
        self._id = ""
        self._events: list[Event] = []
        self._waiting = 0
        self._under_way = 0
        self._held = False
        self._outcome: Outcome | None = None
        self._wake = asyncio.Event()
        self.error: errors.HerdsmanError | None = None

    async def begin(self, facts: Facts) -> None:
        """Store the head. Raises Unavailable or Timeout: then there is no recording, and there must be no session."""
        self._id = facts.id
        await self._stream.ensure()
        await self._stream.append(facts.id, self._sealer.head(facts))

    def put(self, event: Event) -> None:
        """Take one event. Raises Unavailable when there is no room for it."""
        if self.error is not None:
            raise self.error
        size = len(event.data) + _EVENT_BYTES
        if self._waiting + self._under_way + size > MAX_WAITING:
            raise errors.Unavailable("the session's recording can't keep up with it: the session was ended")
        self._events.append(event)
        self._waiting += size
        if not self._held and self._waiting + self._under_way > HOLD_BYTES:
            self._held = True
            self._hold(True)
        if self._waiting >= CHUNK_BYTES or len(self._events) == 1:
            self._wake.set()

    def finish(self, outcome: Outcome) -> None:
        """Nothing more comes; `run` ends when all is stored."""
        self._outcome = outcome
        self._wake.set()

    async def run(self) -> None:
        """Store what comes until the end, or until it can't be stored."""
        try:
            while True:
                await self._collect()
                while self._events:
                    await self._store_part()
                if self._outcome is not None:
                    await self._store(self._sealer.end(self._outcome))
                    return
        except errors.HerdsmanError as exc:
            self._give_up(exc)
        except Exception:
            log.exception("recording_failed", recording=self._id)
            self._give_up(errors.Internal("internal error: the session can't be recorded and was ended"))

    def _give_up(self, error: errors.HerdsmanError) -> None:
        self.error = error
        self._events.clear()
        self._failed(error)

    async def _collect(self) -> None:
        """Wait for the first event, then for a second, a full chunk, or the end."""
        while not self._events and self._outcome is None:
            self._wake.clear()
            await self._wake.wait()
        try:
            async with asyncio.timeout(FLUSH_S):
                while self._waiting < CHUNK_BYTES and self._outcome is None:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            return

    async def _store_part(self) -> None:
        taken: list[Event] = []
        size = 0
        for event in self._events:
            if taken and size + len(event.data) > CHUNK_BYTES:
                break
            taken.append(event)
            size += len(event.data) + _EVENT_BYTES
        del self._events[: len(taken)]
        self._waiting -= size
        self._under_way = size
        await self._store(self._sealer.part(_merge(taken)))
        self._under_way = 0
        if self._held and self._waiting <= HOLD_BYTES // 2:
            self._held = False
            self._hold(False)

    async def _store(self, message: Message) -> None:
        """Append, again and again for a while: the same message is stored once, however often it is sent."""
        give_up = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                await self._stream.append(self._id, message)
            except (errors.Unavailable, errors.Timeout) as exc:
                lasting = isinstance(exc, Refused) and not exc.again
                if lasting or asyncio.get_running_loop().time() > give_up:
                    raise errors.Unavailable(
                        f"the session can't be recorded any more ({exc.message}): it was ended"
                    ) from exc
            else:
                return
            await asyncio.sleep(_PAUSE_S)


def _merge(events: Iterable[Event]) -> Iterator[Event]:
    """What one channel said within a millisecond is one event, however many frames it came in."""
    for (at_ms, channel), run in groupby(events, key=lambda event: (event.at_ms, event.channel)):
        if channel == RESIZE:
            yield from run
        else:
            yield Event(at_ms, channel, b"".join(event.data for event in run))
