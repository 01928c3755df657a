from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from uuid import uuid4

import msgpack
import pytest

from libs.common import errors
from libs.common.audit.stated import StatedEvent
from libs.common.bus.memory import MemoryBus
from libs.common.contracts.messages import IdentityEvent
from libs.common.contracts.methods import AUDIT_IDENTITY
from libs.common.store.memory import MemoryStore
from services.auth_proxy.audit_stated import Stated
from services.identity.audit import trail as trails
from services.identity.audit.trail import LEFT, Trail


class Door:
    """A front door's log: takes what there is room for."""

    def __init__(self) -> None:
        self.events: list[StatedEvent] = []
        self.full = False
        self.came = asyncio.Event()

    def check_room(self) -> None:
        if self.full:
            raise errors.Unavailable("the audit log takes no more")

    def write(self, event) -> None:
        self.events.append(event)
        self.came.set()

    @property
    def ids(self) -> list[str]:
        return [event._event.id for event in self.events]


def an_event(clock, **more) -> IdentityEvent:
    facts = {"action": "sign-in", "outcome": "success", "by": "person", "actor": "ada", **more}
    return IdentityEvent(id=str(uuid4()), at=clock(), **facts)


class Site:
    def __init__(self, clock) -> None:
        self.clock, self.bus, self.store, self.door = clock, MemoryBus(), MemoryStore("identity"), Door()
        self.seconds = 0.0

    def trail(self) -> Trail:
        return Trail(self.bus, self.store, self.clock, lambda: self.seconds)

    def serving(self):
        from libs.common.bus import wire

        async def take(message):
            return await Stated("identity", self.door).take(wire.parse(AUDIT_IDENTITY.request, message.data), message)

        return self.bus.serve(AUDIT_IDENTITY.subject, take, queue="auth_proxy")

    @asynccontextmanager
    async def running(self):
        trail = self.trail()
        task = asyncio.create_task(trail.run(), name="audit trail")
        try:
            yield trail
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await trail.close()


async def taken(door: Door, count: int) -> None:
    async with asyncio.timeout(10):
        while len(door.events) < count:
            door.came.clear()
            await door.came.wait()


async def until(check) -> None:
    """The event is there a moment before its sender knows."""
    async with asyncio.timeout(10):
        while not check():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)


async def test_who_waits_goes_on_when_a_front_door_has_the_event(clock):
    site = Site(clock)
    event = an_event(clock)
    async with site.serving(), site.running() as trail:
        await trail.write(event)
        assert site.door.ids == [event.id]


async def test_without_a_front_door_nobody_is_let_in_and_what_waits_is_sent_in_order_later(clock, monkeypatch):
    monkeypatch.setattr(trails, "WAIT_S", 0.05)
    site = Site(clock)
    first, second = an_event(clock), an_event(clock, action="revoke-token")
    async with site.running() as trail:
        trail.check_room()
        with pytest.raises(errors.Unavailable, match="audit log"):
            await trail.write(first)
        with pytest.raises(errors.Unavailable, match="nobody signs in without a trace"):
            trail.check_room()
        trail.note(second)
        async with site.serving():
            await taken(site.door, 2)
            assert site.door.ids == [first.id, second.id]
            await until(lambda: not trail._queue)
            trail.check_room()


async def test_a_front_door_that_is_full_counts_as_none(clock, monkeypatch):
    monkeypatch.setattr(trails, "WAIT_S", 0.05)
    site = Site(clock)
    site.door.full = True
    async with site.serving(), site.running() as trail:
        with pytest.raises(errors.Unavailable):
            await trail.write(an_event(clock))
        assert site.door.events == []
        site.door.full = False
        await taken(site.door, 1)


async def test_what_waits_at_the_stop_is_left_in_the_store_and_sent_by_the_next_start(clock):
    site = Site(clock)
    events = [an_event(clock) for _ in range(250)]
    async with site.running() as trail:
        for event in events:
            trail.note(event)
    left = [key for key in site.store._last if key.startswith(LEFT)]
    assert len(left) == 3
    async with site.serving(), site.running():
        await taken(site.door, 250)
        await until(lambda: all(site.store._last[key].deleted for key in left))
    assert sorted(site.door.ids) == sorted(event.id for event in events)


async def test_events_beyond_what_memory_holds_are_counted_and_the_count_is_told(clock, monkeypatch):
    monkeypatch.setattr(trails, "MAX_WAITING", 20)
    site = Site(clock)
    async with site.running() as trail:
        for _ in range(25):
            trail.note(an_event(clock))
        with pytest.raises(errors.Unavailable):
            trail.check_room()
        async with site.serving():
            await taken(site.door, 21)
    last = site.door.events[-1]._event
    assert (last.action, last.count, last.outcome) == ("lose-events", 5, "failure")


async def test_counts_of_a_flood_are_told_at_the_stop_at_the_latest(clock):
    site = Site(clock)
    async with site.serving(), site.running() as trail:
        for _ in range(50):
            trail.note_failure(an_event(clock, outcome="failure", by="nobody", actor="", code=401), "192.0.2.1", "ada")
        await taken(site.door, 10)
        await trail.close()
    assert len(site.door.events) == 11
    assert site.door.events[-1]._event.count == 40


async def test_what_another_version_left_stops_nobody_and_stays_for_a_version_that_can_read_it(clock):
    site = Site(clock)
    unreadable = msgpack.packb([{"id": "1", "action": "sign in", "outcome": "unknown"}])
    readable, event = an_event(clock), an_event(clock)
    await site.store.create(f"{LEFT}.0", unreadable)
    await site.store.create(f"{LEFT}.1", b"\xc1")
    await site.store.create(f"{LEFT}.2", msgpack.packb([readable.model_dump(mode="json")]))
    async with site.serving(), site.running() as trail:
        await trail.write(event)
        assert sorted(site.door.ids) == sorted([readable.id, event.id])
    assert (await site.store.get(f"{LEFT}.0")).value == unreadable
    assert (await site.store.get(f"{LEFT}.1")).value == b"\xc1"


async def test_a_front_door_that_understands_nothing_is_not_asked_without_a_pause(clock):
    site, asked = Site(clock), 0

    async def fail(_message):
        nonlocal asked
        asked += 1
        raise errors.Internal("its log says why")

    async with site.bus.serve(AUDIT_IDENTITY.subject, fail, queue="auth_proxy"), site.running() as trail:
        trail.note(an_event(clock))
        await until(lambda: asked)
        await asyncio.sleep(0.2)
        assert asked < 10
