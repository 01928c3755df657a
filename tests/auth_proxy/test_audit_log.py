"""The audit log of one process: nothing is lost while the bus is away, over a stop, a crash, a full disk; and what is lost is told."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common import errors
from libs.common.audit.chain import read_batch
from libs.common.audit.event import RawEvent
from libs.common.audit.policy import Decision
from libs.common.audit.request import RequestInfo
from libs.common.audit.verify import LogVerifier
from libs.common.bus.journal import MemoryJournal
from services.auth_proxy import audit, audit_spool
from services.auth_proxy.audit import AuditLog, AuditSettings
from services.auth_proxy.audit_figures import AuditFigures
from tests.store.watching import eventually

KEY = Ed25519PrivateKey.generate()
AWAY = errors.Unavailable("the bus does not answer")


def event(number: int) -> RawEvent:
    moment = time.time()
    return RawEvent(
        "ResponseComplete", number, moment, moment, RequestInfo("get", f"/n/{number}"), b"/n/%d" % number, "1.2.3.4", b"kubectl", None,
        frozenset(), "", "", Decision("Metadata"), 200,
    )  # fmt: skip


class Running:
    def __init__(self, log: AuditLog, tasks: list[asyncio.Task[None]]) -> None:
        self.log, self.tasks = log, tasks

    async def stop(self, timeout_s: float = 1.0) -> None:
        await self.log.close(timeout_s)
        await self.kill()

    async def kill(self) -> None:
        """As if the process died here: what is in memory is gone, the locks are free."""
        if not self.tasks:
            return
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks = []
        self.log.release()


@asynccontextmanager
async def running(folder, journal, **settings):
    log = AuditLog(AuditSettings(folder / "audit", **settings), KEY, journal, AuditFigures())
    await log.start()
    made = Running(
        log, [asyncio.create_task(log.run(), name="run"), asyncio.create_task(log.publish(), name="publish")]
    )
    try:
        yield made
    finally:
        await made.kill()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(audit, "FLUSH_S", 0.01)
    monkeypatch.setattr(audit, "_RETRY_S", 0.02)
    monkeypatch.setattr(audit, "_MAX_PAUSE_S", 0.02)


pytestmark = pytest.mark.usefixtures("quick")


def numbers(journal: MemoryJournal) -> list[int]:
    """The events that are in the stream."""
    lines = [line for e in journal.entries for line in read_batch(e.data)[1] if line.startswith(b'{"kind":"Event"')]
    return [int(line.split(b'"requestURI":"/n/')[1].split(b'"')[0]) for line in lines]


def verify(journal: MemoryJournal) -> LogVerifier:
    verifier = LogVerifier(KEY.public_key())
    for entry in journal.entries:
        verifier.feed(*read_batch(entry.data), f"#{entry.sequence}")
    verifier.finish()
    return verifier


async def test_events_come_into_the_stream_in_order_and_a_stop_ends_the_chain(tmp_path):
    journal = MemoryJournal()
    async with running(tmp_path, journal) as process:
        for number in range(1200):
            process.log.write(event(number))
        await eventually(lambda: len(numbers(journal)) == 1200)
        process.log.write(event(1200))
        await process.stop()
    assert numbers(journal) == list(range(1201))
    assert verify(journal).findings == []


async def test_a_bus_that_is_away_costs_nothing(tmp_path):
    journal = MemoryJournal()
    journal.refuse = AWAY
    async with running(tmp_path, journal) as process:
        for number in range(100):
            process.log.write(event(number))
            await asyncio.sleep(0.001)
        assert journal.entries == []
        journal.refuse = None
        await eventually(lambda: len(numbers(journal)) == 100)
    assert numbers(journal) == list(range(100))


async def test_a_stop_while_the_bus_is_away_leaves_the_rest_to_the_next_start(tmp_path):
    journal = MemoryJournal()
    journal.refuse = AWAY
    async with running(tmp_path, journal) as process:
        process.log.write(event(1))
        await process.stop(0.05)
    journal.refuse = None
    async with running(tmp_path, journal) as process:
        process.log.write(event(2))
        await process.stop()
    assert numbers(journal) == [1, 2]
    assert verify(journal).findings == []


async def test_a_killed_process_loses_only_what_was_not_on_disk_and_the_log_says_so(tmp_path):
    journal = MemoryJournal()
    journal.refuse = AWAY
    async with running(tmp_path, journal) as process:
        process.log.write(event(1))
        await eventually(lambda: process.log._writer.pending_bytes > 1000 and not process.log._queue)
        process.log.write(event(2))
        await process.kill()
    journal.refuse = None
    async with running(tmp_path, journal) as process:
        await process.stop()
    assert numbers(journal) == [1]
    found = verify(journal)
    assert [f.severity for f in found.findings] == ["gap"]
    assert "without a stop" in found.findings[0].text
    # The third start follows a clean one: the killed chain is told once.
    async with running(tmp_path, journal) as process:
        await process.stop()
    assert len(verify(journal).findings) == 1
    assert len(list((tmp_path / "audit").iterdir())) == 1


async def test_a_lost_answer_stores_nothing_twice(tmp_path):
    journal = MemoryJournal()
    journal.lose_answers = 3
    async with running(tmp_path, journal) as process:
        process.log.write(event(1))
        await process.stop(3.0)
    assert numbers(journal) == [1]
    assert verify(journal).findings == []


async def test_a_lost_answer_before_a_crash_stores_nothing_twice(tmp_path):
    journal = MemoryJournal()
    journal.lose_answers = 1
    journal_refuses = AWAY
    async with running(tmp_path, journal) as process:
        await eventually(lambda: journal.entries)
        journal.refuse = journal_refuses
        await process.kill()
    journal.refuse = None
    async with running(tmp_path, journal) as process:
        await process.stop()
    assert [f.severity for f in verify(journal).findings] == ["gap"]


async def test_a_stream_that_was_made_anew_is_written_on_and_the_verification_misses_the_rest(tmp_path):
    journal = MemoryJournal()
    async with running(tmp_path, journal) as process:
        process.log.write(event(1))
        await eventually(lambda: numbers(journal) == [1])
        journal.entries.clear()
        process.log.write(event(2))
        await eventually(lambda: numbers(journal) == [2])
        await process.stop()
    assert verify(journal).worst == "broken"


async def test_a_full_spool_refuses_new_calls_until_there_is_room(tmp_path):
    journal = MemoryJournal()
    journal.refuse = AWAY
    async with running(tmp_path, journal, spool_bytes=3000) as process:
        log = process.log
        log.check_room()
        number = 0
        while not log.full:
            log.write(event(number))
            number += 1
            await asyncio.sleep(0.005)
        with pytest.raises(errors.Unavailable, match="the audit log takes no more") as refused:
            log.check_room()
        assert refused.value.retry_after_s == 1
        log.write(event(number))  # a call that was let in before
        journal.refuse = None
        await eventually(lambda: not log.full)
        log.check_room()
        await process.stop()
    assert numbers(journal) == list(range(number + 1))
    texts = [f.text for f in verify(journal).findings]
    assert len(texts) == 1
    assert "0 events lost and 1 calls refused" in texts[0]


async def test_drop_lets_calls_go_on_and_writes_down_how_many_were_lost(tmp_path):
    journal = MemoryJournal()
    journal.refuse = AWAY
    async with running(tmp_path, journal, spool_bytes=3000, when_full="drop") as process:
        log = process.log
        number = 0
        while not log.full:
            log.write(event(number))
            number += 1
            await asyncio.sleep(0.005)
        for lost in range(7):
            log.check_room()
            log.write(event(1000 + lost))
        journal.refuse = None
        await eventually(lambda: not log.full)
        log.write(event(2000))
        await process.stop()
    assert numbers(journal) == [*range(number), 2000]
    texts = [f.text for f in verify(journal).findings]
    assert len(texts) == 1
    assert "7 events lost and 0 calls refused" in texts[0]


async def test_events_that_come_faster_than_they_are_written_stop_new_calls_not_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "QUEUE_SOFT", 600)
    monkeypatch.setattr(audit, "QUEUE_HARD", 700)
    journal = MemoryJournal()
    async with running(tmp_path, journal) as process:
        for number in range(1000):
            process.log.write(event(number))
        with pytest.raises(errors.Unavailable):
            process.log.check_room()
        assert len(process.log._queue) == 700
        await eventually(lambda: not process.log.full)
        await process.stop()
    assert numbers(journal) == list(range(700))
    assert "300 events lost" in verify(journal).findings[0].text


async def test_a_full_disk_stops_new_calls_once_memory_is_full_too_and_is_left_behind_by_itself(tmp_path, monkeypatch):
    journal = MemoryJournal()
    monkeypatch.setattr(audit, "QUEUE_SOFT", 3)
    async with running(tmp_path, journal) as process:
        await eventually(lambda: journal.entries)
        real = os.pwrite

        def full(descriptor, data, offset):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(audit_spool.os, "pwrite", full)
        process.log.write(event(1))
        await eventually(lambda: process.log._disk_error)
        process.log.check_room()
        for number in (2, 3, 4):
            process.log.write(event(number))
        await eventually(lambda: process.log.full)
        with pytest.raises(errors.Unavailable, match="No space left"):
            process.log.check_room()
        process.log.write(event(5))
        monkeypatch.setattr(audit_spool.os, "pwrite", real)
        await eventually(lambda: not process.log.full)
        await process.stop()
    assert numbers(journal) == [1, 2, 3, 4, 5]
    assert verify(journal).worst == "gap"


async def test_long_heads_fill_memory_sooner_and_leave_room_again(tmp_path, monkeypatch):
    journal = MemoryJournal()
    monkeypatch.setattr(audit, "QUEUE_BYTES", 100_000)
    async with running(tmp_path, journal) as process:
        await eventually(lambda: journal.entries)
        for number in (1, 2):
            large = event(number)
            large.agent = b"x" * 60_000
            process.log.write(large)
        with pytest.raises(errors.Unavailable, match="takes no more"):
            process.log.check_room()
        await eventually(lambda: not process.log.full)
        assert process.log._queue_bytes == 0
        await process.stop()
    assert numbers(journal) == [1, 2]


async def test_an_unreadable_spool_file_is_kept_for_a_person_and_the_log_goes_on(tmp_path):
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "x.spool").write_bytes(b"rubbish")
    journal = MemoryJournal()
    async with running(tmp_path, journal) as process:
        process.log.write(event(1))
        await process.stop()
    assert numbers(journal) == [1]
    assert (tmp_path / "audit" / "x.unreadable").read_bytes() == b"rubbish"


async def test_a_folder_that_cannot_be_used_is_an_error_with_its_name(tmp_path):
    (tmp_path / "audit").write_text("a file")
    log = AuditLog(AuditSettings(tmp_path / "audit"), KEY, MemoryJournal(), AuditFigures())
    with pytest.raises(errors.Unavailable, match="audit"):
        await log.start()
    log.release()


async def test_malformed_requests_have_a_few_events_a_second_and_the_rest_is_counted(tmp_path):
    journal = MemoryJournal()
    now = 1000.0
    log = AuditLog(AuditSettings(tmp_path / "audit"), KEY, journal, AuditFigures(), lambda: now)
    taken: list[RawEvent] = []
    log.write = taken.append
    session = SimpleNamespace(peer="10.0.0.9")
    for _ in range(500):
        log.malformed(session, errors.BadRequest("no head"))
    now += 1.5
    log.malformed(session, errors.BadRequest("no head"))
    assert len(taken) == audit.MALFORMED_PER_S + 1
    assert taken[-1].error == f"no head (and {500 - audit.MALFORMED_PER_S} more such requests that have no event)"
    assert {e.peer for e in taken} == {"10.0.0.9"}
    log.release()


async def test_two_processes_share_the_folder_each_with_its_own_chain(tmp_path):
    journal = MemoryJournal()
    async with running(tmp_path, journal) as one, running(tmp_path, journal) as two:
        one.log.write(event(1))
        two.log.write(event(2))
        await two.stop()
        await one.stop()
    assert sorted(numbers(journal)) == [1, 2]
    found = verify(journal)
    assert (len(found.chains), found.findings) == (2, [])


async def test_the_copy_for_log_collectors_holds_the_same_lines(tmp_path):
    journal = MemoryJournal()
    async with running(tmp_path, journal, file=tmp_path / "copy") as process:
        process.log.write(event(1))
        await process.stop()
    lines = [line for e in journal.entries for line in read_batch(e.data)[1]]
    assert (tmp_path / "copy").read_bytes().splitlines() == lines
