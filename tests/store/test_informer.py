from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from libs.common import errors
from libs.common.store.base import Entry
from libs.common.store.informer import Change, Informer
from libs.common.store.memory import MemoryStore
from tests.store.informing import Running
from tests.store.watching import eventually


@pytest.fixture
async def running() -> AsyncGenerator[Running, None]:
    async with Running() as made:
        yield made


async def test_the_copy_has_what_the_bucket_has(running: Running) -> None:
    ann = await running.store.create("users.ann", b"1")
    bob = await running.store.create("users.bob", b"1")
    await running.store.delete("users.bob", b"1", bob)
    await running.catch_up()
    assert running.informer.entries == {"users.ann": Entry("users.ann", b"1", ann)}
    assert running.informer.get("users.bob") is None


async def test_an_informer_of_an_empty_bucket_is_synced(running: Running) -> None:
    await asyncio.wait_for(running.informer.synced.wait(), 1)
    assert running.informer.revision == 0


async def test_a_subscriber_is_told_of_each_change_with_what_was_before(running: Running) -> None:
    await running.informer.synced.wait()
    first = await running.store.create("users.ann", b"1")
    second = await running.store.update("users.ann", b"2", first)
    third = await running.store.delete("users.ann", b"bye", second)
    await running.catch_up()
    one, two = Entry("users.ann", b"1", first), Entry("users.ann", b"2", second)
    assert running.changes == [
        Change("users.ann", None, one, one),
        Change("users.ann", one, two, two),
        Change("users.ann", two, None, Entry("users.ann", b"bye", third, deleted=True)),
    ]


async def test_a_late_subscriber_is_first_told_what_is_there(running: Running) -> None:
    await running.store.create("users.ann", b"1")
    await running.catch_up()
    told: list[str] = []
    running.informer.subscribe(lambda change: told.append(change.key))
    running.informer.subscribe(lambda change: told.append(change.key), replay=False)
    assert told == ["users.ann"]


async def test_who_ended_the_subscription_hears_no_more(running: Running) -> None:
    await running.informer.synced.wait()
    told: list[Change] = []
    end = running.informer.subscribe(told.append)
    end()
    end()
    await running.store.create("users.ann", b"1")
    await running.catch_up()
    assert told == []


async def test_a_handler_that_raises_harms_nobody_else(running: Running) -> None:
    def broken(_change: Change) -> None:
        raise RuntimeError("broken")

    running.informer.subscribe(broken)
    told: list[Change] = []
    running.informer.subscribe(told.append)
    await running.store.create("users.ann", b"1")
    await running.store.create("users.bob", b"1")
    await running.catch_up()
    assert [c.key for c in told] == ["users.ann", "users.bob"]
    assert running.informer.handler_failures == 2


async def test_a_writer_can_wait_until_its_write_is_here(running: Running) -> None:
    revision = await running.store.create("users.ann", b"1")
    await running.informer.wait_revision(revision)
    assert running.informer.get("users.ann") is not None
    with pytest.raises(errors.Timeout):
        await running.informer.wait_revision(revision + 1, timeout_s=0.05)


async def test_an_entry_whose_time_ran_out_is_gone_with_its_last_bytes(running: Running) -> None:
    await running.store.create("leases.a", b"me", ttl_s=1)
    await eventually(lambda: len(running.changes) == 2)
    assert running.changes[1].after is None
    assert running.changes[1].last.value == b"me"


async def test_few_vanished_keys_are_let_go_at_once(running: Running) -> None:
    for n in range(100):
        await running.store.create(f"nodes.n{n}", b"x")
    await running.catch_up()
    running.store.interrupt()
    for n in range(10):
        running.store.compact(f"nodes.n{n}")
    await eventually(lambda: len(running.informer.entries) == 90)
    assert running.informer.brake.holding == 0
    assert [c.key for c in running.changes if c.after is None] == [f"nodes.n{n}" for n in range(10)]


async def test_many_vanished_keys_are_kept_until_a_second_listing_confirms(running: Running) -> None:
    for n in range(100):
        await running.store.create(f"nodes.n{n}", b"x")
    await running.catch_up()
    lost = {f"nodes.n{n}": running.store._last[f"nodes.n{n}"] for n in range(40)}
    running.informer._confirm_after_s = 0.3
    running.store.interrupt()
    for key in lost:
        running.store.compact(key)
    await eventually(lambda: running.informer.brake.holding == 40)
    assert len(running.informer.entries) == 100
    await eventually(lambda: len(running.informer.entries) == 60)
    assert running.informer.brake.holding == 0


async def test_keys_that_a_second_listing_has_again_were_never_gone(running: Running) -> None:
    for n in range(100):
        await running.store.create(f"nodes.n{n}", b"x")
    await running.catch_up()
    entries = dict(running.store._last)
    running.informer._confirm_after_s = 0.1
    running.store.interrupt()
    running.store._last.clear()
    await eventually(lambda: running.informer.brake.holding == 100)
    running.store._last.update(entries)
    await eventually(lambda: running.informer.brake.holding == 0)
    assert len(running.informer.entries) == 100
    assert not any(change.after is None for change in running.changes)


async def test_a_bucket_made_anew_replaces_the_copy_and_revisions_start_over(running: Running) -> None:
    for name in ("ann", "bob", "eve"):
        await running.store.create(f"users.{name}", b"1")
    await running.catch_up()
    epoch = running.informer.epoch
    running.store.recreate()
    revision = await running.store.create("users.ann", b"anew")
    await eventually(lambda: running.informer.epoch != epoch)
    await eventually(lambda: running.informer.revision == revision)
    assert running.informer.entries == {"users.ann": Entry("users.ann", b"anew", revision)}


async def test_the_age_of_the_copy_is_known() -> None:
    moment = 100.0
    store = MemoryStore("identity")
    informer = Informer(store, monotonic=lambda: moment)
    assert informer.age_s() is None
    task = asyncio.create_task(informer.run())
    await informer.synced.wait()
    moment = 107.0
    assert informer.age_s() == 7.0
    await store.create("users.ann", b"1")
    await eventually(lambda: informer.age_s() == 0.0)
    task.cancel()
    await asyncio.wait([task])
