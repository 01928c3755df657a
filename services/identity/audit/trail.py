"""Brings events to the audit log: to any front door, which writes them into its own signed chain (`services.auth_proxy.audit_stated`).

What is told: whoever is let in waits until a front door has the event, and is not let in without (`attempts`); everything else waits in memory, in order,
and is sent again until it is taken. When `MAX_WAITING` wait, or none was taken lately, nobody is let in. What still waits when this process stops is left in the
store, and the next one that starts sends it; what it cannot read, or no front door takes from it, stays there for a version that can. A process that is killed
loses what waited in memory. An event that found no room is counted, and the count is told as soon as there is somebody to tell. Sent twice is possible: both
have one id.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from functools import cache
from uuid import uuid4

import msgpack
from prometheus_client import Counter

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts.messages import Empty, IdentityEvent, IdentityEvents
from libs.common.contracts.methods import AUDIT_IDENTITY
from libs.common.observe import log, metrics
from libs.common.store.base import Entry, Store
from services.identity.audit.floods import Floods

MAX_WAITING = 10_000
_TAKE = 100
WAIT_S = 3.0
"""How long somebody who signs in waits for this."""
_SEND_S = 2.0
_MAX_PAUSE_S = 2.0
_CLOSE_S = 2.0
_ALARM_AT = 5
"""A front door that restarts is back before so many tries."""
_TELL_EVERY_S = 5.0
LEFT = "unaudited"
_NOT_UNDERSTOOD = (errors.BadRequest, errors.Invalid, errors.Internal)
"""Another version of the front door, which will not understand it the next time either."""
_Waiting = tuple[IdentityEvent, "asyncio.Future[None] | None"]


@cache
def _lost() -> Counter:
    return Counter(
        "herdsman_identity_events_lost", "Events of identity that no audit log took", registry=metrics.registry()
    )


class Trail:
    """`run` and `tell_counts` are its tasks; `close` at the end. Invariant: an event is taken by a front door, left in the store, or counted as lost."""

    def __init__(self, bus: Bus, store: Store, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self._bus = bus
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._floods = Floods()
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._sending = asyncio.Lock()
        self._problem = ""
        self._failed = 0
        self._lost = 0
        self._passed_over: set[str] = set()

    def check_room(self) -> None:
        """Before somebody is let in. Raises Unavailable when what is done could not be written down."""
        if self._problem or len(self._queue) >= MAX_WAITING:
            raise errors.Unavailable(
                "the audit log takes nothing at the moment, and nobody signs in without a trace: try again",
                retry_after_s=1,
            )

    def note(self, event: IdentityEvent) -> None:
        """Take an event; never waits."""
        self._put(event, None)

    def note_failure(self, event: IdentityEvent, network: str, typed: str) -> None:
        """Take a failure, of which there may be a flood. `network` and `typed` tell them apart and are not written down."""
        if self._floods.take(event, network, typed, self._monotonic()):
            self.note(event)

    async def write(self, event: IdentityEvent) -> None:
        """Take an event and wait until a front door has it. Raises Unavailable; it may be written down all the same."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(event, taken)
        try:
            async with asyncio.timeout(WAIT_S):
                await taken
        except TimeoutError as exc:
            raise errors.Unavailable(
                "the audit log did not take it in time, and nobody signs in without a trace: try again", retry_after_s=1
            ) from exc

    async def run(self) -> None:
        """Send what waits, in order, for ever; first what an earlier process left."""
        pause_s, left = 0.1, False
        while True:
            if not left:
                left = await self._take_up()
            try:
                async with asyncio.timeout(None if left else _MAX_PAUSE_S):
                    await self._wake.wait()
            except TimeoutError:
                continue
            if await self._send():
                pause_s = 0.1
                continue
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, _MAX_PAUSE_S)

    async def tell_counts(self) -> None:
        """Write down what was counted, for ever."""
        while True:
            await asyncio.sleep(_TELL_EVERY_S)
            self._tell_counts()

    async def close(self) -> None:
        """After the tasks have ended: send the rest, or leave it in the store."""
        self._tell_counts(all_of_them=True)
        try:
            async with asyncio.timeout(_CLOSE_S):
                while self._queue and await self._send():
                    pass
        except TimeoutError:
            self._problem = "no answer while stopping"
        if not self._queue:
            return
        waiting, left = [event for event, _ in self._queue], 0
        try:
            while left < len(waiting):
                some = waiting[left : left + _TAKE]
                packed: bytes = msgpack.packb([e.model_dump(mode="json") for e in some])
                await self._store.create(f"{LEFT}.{uuid4()}", packed)
                left += len(some)
        except errors.HerdsmanError as exc:
            _lost().inc(len(waiting) - left)
            log.get("identity").error("audit_events_lost", count=len(waiting) - left, error=exc.message)
            return
        log.get("identity").warning("audit_events_left", count=len(waiting), error=self._problem)

    # ── inside ──

    def _put(self, event: IdentityEvent, taken: asyncio.Future[None] | None) -> None:
        if len(self._queue) >= MAX_WAITING:
            self._lose(1)
            return
        self._queue.append((event, taken))
        self._wake.set()

    async def _send(self) -> bool:
        """One batch. False: nobody took it; it waits, unless it was not understood."""
        async with self._sending:
            self._tell_lost()
            batch = [self._queue[n] for n in range(min(_TAKE, len(self._queue)))]
            if not batch:
                self._wake.clear()
                return True
            try:
                await self._bus.request(
                    AUDIT_IDENTITY.subject,
                    IdentityEvents(events=[event for event, _ in batch]),
                    Empty,
                    timeout_s=_SEND_S,
                )
            except _NOT_UNDERSTOOD as exc:
                log.get("identity").error("audit_events_refused", count=len(batch), error=exc.message)
                self._lose(len(batch))
                self._drop(batch, taken=False)
                # With a pause: what tells of the loss may be refused as well, and be one loss more.
                return False
            except errors.HerdsmanError as exc:
                self._failed += 1
                if self._failed == _ALARM_AT:
                    log.get("identity").error(
                        "audit_not_taken",
                        error=exc.message,
                        advice="nobody signs in until a front door takes the events that wait",
                    )
                self._problem = exc.message
                return False
            if self._failed >= _ALARM_AT:
                log.get("identity").info("audit_taken_again", waiting=len(self._queue) - len(batch))
            self._problem, self._failed = "", 0
            self._drop(batch, taken=True)
            return True

    def _drop(self, batch: list[_Waiting], *, taken: bool) -> None:
        for _, waiter in batch:
            self._queue.popleft()
            if taken and waiter is not None and not waiter.done():
                waiter.set_result(None)

    def _tell_counts(self, *, all_of_them: bool = False) -> None:
        for event in self._floods.due(self._monotonic(), all_of_them=all_of_them):
            self.note(event)

    def _lose(self, count: int) -> None:
        self._lost += count
        _lost().inc(count)

    def _tell_lost(self) -> None:
        """As soon as there is room for it."""
        if self._lost and len(self._queue) < MAX_WAITING:
            lost, self._lost = self._lost, 0
            self._put(
                IdentityEvent(
                    id=str(uuid4()), at=self._now(), action="lose-events", outcome="failure", reason="no_room", code=503, by="hub", count=lost,
                    note=f"{lost} events of identity could not be written down",
                ), None,
            )  # fmt: skip

    async def _take_up(self) -> bool:
        """Send what an earlier process could not. True: nothing of it is left that could be sent."""
        try:
            async with aclosing(self._store.scan(LEFT)) as entries:
                async for entry in entries:
                    if not entry.deleted and entry.key not in self._passed_over:
                        await self._bring(entry)
        except (errors.NotFound, errors.Conflict):
            # Another replica has taken it up.
            return False
        except errors.HerdsmanError as exc:
            log.get("identity").debug("audit_events_not_taken_up", error=exc.message)
            return False
        return True

    async def _bring(self, entry: Entry) -> None:
        """What one entry holds to a front door. Raises Unavailable, NotFound, Conflict."""
        try:
            events = IdentityEvents.model_validate({"events": msgpack.unpackb(entry.value)})
            await self._bus.request(AUDIT_IDENTITY.subject, events, Empty, timeout_s=_SEND_S)
        except (ValueError, msgpack.UnpackException, *_NOT_UNDERSTOOD) as exc:
            # A newer version left it, and was taken back.
            self._passed_over.add(entry.key)
            log.get("identity").error("audit_events_passed_over", key=entry.key, error=type(exc).__name__)
            return
        await self._store.delete(entry.key, b"", entry.revision)
