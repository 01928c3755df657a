"""One session's way to the stream: soon, in order, bounded, and never silently incomplete."""

from __future__ import annotations

import asyncio

import pytest

from libs.common import errors
from libs.common.bus.jetstream_api import Refused
from libs.common.recording import writer as module
from libs.common.recording.chain import Sealer
from libs.common.recording.events import RESIZE, STDERR, STDOUT, Event
from libs.common.recording.writer import CHUNK_BYTES, HOLD_BYTES, MAX_WAITING, Writer
from tests.recording.made import ID, SIGNER, facts, open_all, outcome
from tests.recording.memory import MemoryLog


class Rig:
    def __init__(self) -> None:
        self.log = MemoryLog()
        self.held: list[bool] = []
        self.failures: list[errors.HerdsmanError] = []
        self.writer = Writer(self.log, Sealer(SIGNER), hold=self.held.append, failed=self.failures.append)

    async def run(self) -> None:
        async with asyncio.timeout(10):
            await self.writer.run()

    def read(self):
        return open_all([part.data for part in self.log.parts], ID)


@pytest.fixture
async def rig(monkeypatch):
    monkeypatch.setattr(module, "FLUSH_S", 0.02)
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    monkeypatch.setattr(module, "_PAUSE_S", 0.005)
    made = Rig()
    await made.writer.begin(facts())
    return made


async def test_events_are_stored_soon_and_before_the_end_comes(rig):
    task = asyncio.create_task(rig.run())
    rig.log.appended.clear()
    rig.writer.put(Event(1, STDOUT, b"x"))
    async with asyncio.timeout(5):
        await rig.log.appended.wait()
    assert rig.read()[1] == [Event(1, STDOUT, b"x")]
    rig.writer.finish(outcome())
    await task
    assert rig.read()[0].outcome == outcome()


async def test_much_is_stored_in_parts_and_read_in_order(rig):
    events = [Event(n, STDOUT, bytes([n]) * 9000) for n in range(20)]
    for event in events:
        rig.writer.put(event)
    rig.writer.finish(outcome())
    await rig.run()
    assert rig.read()[1] == events
    assert len(rig.log.parts) >= 2 + 20 * 9000 // (CHUNK_BYTES + 9000)


async def test_what_came_within_a_millisecond_is_one_event_and_sizes_stay_apart(rig):
    for event in (
        Event(1, STDOUT, b"a"), Event(1, STDOUT, b"b"), Event(1, STDERR, b"c"), Event(2, STDOUT, b"d"), Event(3, RESIZE, b"1x1"),
        Event(3, RESIZE, b"2x2"),
    ):  # fmt: skip
        rig.writer.put(event)
    rig.writer.finish(outcome())
    await rig.run()
    assert [(e.at_ms, e.channel, e.data) for e in rig.read()[1]] == [
        (1, STDOUT, b"ab"), (1, STDERR, b"c"), (2, STDOUT, b"d"), (3, RESIZE, b"1x1"), (3, RESIZE, b"2x2"),
    ]  # fmt: skip


async def test_a_session_that_is_too_quick_is_held_and_let_go_again(rig):
    rig.log.gate.clear()
    task = asyncio.create_task(rig.run())
    for number in range(HOLD_BYTES // 1000 + 1):
        rig.writer.put(Event(number, STDOUT, b"x" * 1000))
    assert rig.held == [True]
    rig.log.gate.set()
    rig.writer.finish(outcome())
    await task
    assert rig.held == [True, False]
    assert rig.failures == []


async def test_more_than_may_wait_is_refused(rig):
    for number in range(MAX_WAITING // 61_000):
        rig.writer.put(Event(number, STDOUT, b"x" * 60_000))
    with pytest.raises(errors.Unavailable, match="can't keep up"):
        rig.writer.put(Event(99, STDOUT, b"x" * 100_000))


async def test_a_short_absence_costs_nothing(rig):
    rig.log.away = True
    attempts = rig.log.attempts
    task = asyncio.create_task(rig.run())
    rig.writer.put(Event(1, STDOUT, b"x"))
    await rig.log.attempted(attempts + 2)
    rig.log.away = False
    rig.writer.finish(outcome())
    await task
    assert rig.failures == []
    assert rig.read()[1] == [Event(1, STDOUT, b"x")]


async def test_a_long_absence_is_told_and_nothing_is_taken_any_more(rig):
    rig.log.away = True
    rig.writer.put(Event(1, STDOUT, b"x"))
    await rig.run()
    assert len(rig.failures) == 1
    assert "can't be recorded any more" in rig.failures[0].message
    with pytest.raises(errors.Unavailable):
        rig.writer.put(Event(2, STDOUT, b"y"))


@pytest.mark.parametrize(
    "error", [Refused("no room", 10077, again=False), errors.Denied("may not"), errors.TooLarge("too large")]
)
async def test_a_refusal_is_told_at_once(rig, error):
    rig.log.refusing = error
    attempts = rig.log.attempts
    rig.writer.put(Event(1, STDOUT, b"x"))
    await rig.run()
    assert rig.log.attempts == attempts + 1
    assert len(rig.failures) == 1


async def test_a_bug_ends_the_session_too(rig, monkeypatch, capsys):
    async def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(rig.log, "append", broken)
    rig.writer.put(Event(1, STDOUT, b"x"))
    await rig.run()
    assert isinstance(rig.failures[0], errors.Internal)
