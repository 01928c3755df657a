"""Who holds connections of which cluster: entries on values, the registry on the memory store."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

import pytest

from libs.common import errors
from libs.common.store.informer import Informer
from libs.common.store.memory import MemoryStore
from services.auth_proxy import registry as module
from services.auth_proxy.holders import Holder, decode, encode
from services.auth_proxy.registry import Registry


class Process:
    """One front-door process's registry on a shared store."""

    def __init__(self, store, worker, tasks):
        self.clusters = {}
        self.draining = False
        self.load = 0
        self.worker = worker
        self.informer = Informer(store, name=worker)
        self.registry = Registry(store, self.informer, worker, self.me)
        tasks += [asyncio.create_task(self.informer.run()), asyncio.create_task(self.registry.run())]

    def me(self):
        return Holder(self.worker, f"/run/{self.worker}", "", self.draining, self.load, dict(self.clusters))

    def set(self, uid, connected):
        self.clusters[uid] = connected
        if not connected:
            del self.clusters[uid]
        self.registry.presence_changed(uid, connected)


@pytest.fixture
async def make():
    store, tasks = MemoryStore("tunnels"), []
    yield lambda worker: Process(store, worker, tasks), store
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def eventually(check):
    for _ in range(300):
        if check():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come true within three seconds")


def test_an_entry_comes_back_as_it_went():
    holder = Holder("w1", "/run/h-w1.sock", "10.0.0.1:8444", True, 7, {"uid-b": 3, "uid-a": 400})
    back = decode(encode(holder, 1))
    assert back == Holder("w1", "/run/h-w1.sock", "10.0.0.1:8444", True, 7, {"uid-a": 255, "uid-b": 3})
    assert decode(encode(Holder("w1"), 1)) == Holder("w1")


def test_a_thousand_clusters_fit_in_a_small_entry_and_twenty_thousand_in_a_value():
    holder = Holder("w1", clusters={str(uuid.uuid4()): 4 for _ in range(1000)})
    assert len(encode(holder, 1)) < 26_000
    many = Holder("w1", clusters={str(uuid.uuid4()): 4 for _ in range(20_000)})
    assert len(encode(many, 1)) < 768 * 1024


@pytest.mark.parametrize("value", [b"", b"\xc1", b"\x80", b"\x81\xa1v\x02", encode(Holder("w"), 1)[:-3]])
def test_an_entry_that_cannot_be_read_is_refused_in_words(value):
    with pytest.raises(errors.Invalid, match="the entry of a front-door process"):
        decode(value)


async def test_a_first_connection_is_known_to_the_others_within_a_fifth_of_a_second(make):
    process, _ = make
    one, two = process("one"), process("two")
    await two.informer.synced.wait()
    began = asyncio.get_running_loop().time()
    one.set("uid-1", 2)
    await eventually(lambda: two.registry.find("uid-1"))
    assert asyncio.get_running_loop().time() - began < 0.5
    assert two.registry.find("uid-1").worker == "one"
    assert one.registry.find("uid-1") is None, "a process never finds itself"
    one.set("uid-1", 0)
    await eventually(lambda: not two.registry.find("uid-1"))
    assert two.registry.left_at("uid-1") is not None


async def test_more_connections_of_a_known_cluster_are_no_news(make):
    process, store = make
    one = process("one")
    one.set("uid-1", 1)
    await eventually(lambda: store._revision == 1)
    for number in range(2, 50):
        one.set("uid-1", number)
    await asyncio.sleep(0.2)
    assert store._revision == 1


async def test_a_thousand_clusters_at_once_are_a_handful_of_writes(make):
    process, store = make
    one = process("one")
    for number in range(1000):
        one.set(f"uid-{number}", 1)
        if number % 100 == 0:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.3)
    assert store._revision <= 6


async def test_the_entry_of_a_process_that_vanished_ends_and_serves_as_a_last_resort_only(make, monkeypatch):
    monkeypatch.setattr(module, "TTL_S", 0.2)
    process, store = make
    one, two = process("one"), process("two")
    await two.informer.synced.wait()
    gone = Holder("gone", clusters={"uid-1": 1})
    await store.create(gone.key, encode(gone, 1), ttl_s=1)
    await eventually(lambda: two.registry.find("uid-1"))
    await eventually(lambda: "gone" not in two.registry.holders)
    assert two.registry.find("uid-1").worker == "gone"
    two.registry.unreachable(gone)
    assert two.registry.find("uid-1") is None
    one.set("uid-1", 1)
    await eventually(lambda: two.registry.find("uid-1"))
    assert two.registry.find("uid-1").worker == "one"


async def test_whoever_stays_is_asked_before_whoever_goes_and_the_idle_before_the_busy(make):
    process, _ = make
    one, two, three = process("one"), process("two"), process("three")
    await three.informer.synced.wait()
    one.load, two.load = 5, 1
    one.set("uid-1", 1)
    two.set("uid-1", 1)
    await eventually(lambda: len(three.registry.holders) == 2)
    assert {three.registry.find("uid-1").worker for _ in range(20)} == {"two"}
    assert three.registry.find("uid-1", {"two"}).worker == "one"
    two.draining = True
    two.registry.announce()
    await eventually(lambda: three.registry.holders["two"].draining)
    assert {three.registry.find("uid-1").worker for _ in range(20)} == {"one"}
    assert three.registry.find("uid-1", {"one"}).worker == "two"


async def test_who_was_found_away_or_lacking_is_asked_again_once_it_speaks(make):
    process, _ = make
    one, two = process("one"), process("two")
    await two.informer.synced.wait()
    one.set("uid-1", 1)
    one.set("uid-2", 1)
    await eventually(lambda: two.registry.find("uid-2"))
    found = two.registry.find("uid-1")
    two.registry.lacks(found, "uid-1")
    assert two.registry.find("uid-1") is None
    assert two.registry.find("uid-2") is found
    two.registry.unreachable(found)
    assert two.registry.find("uid-2") is None
    one.registry.announce()
    await eventually(lambda: two.registry.find("uid-1") and two.registry.find("uid-2"))


async def test_an_entry_that_ended_meanwhile_is_written_anew(make):
    process, store = make
    one, two = process("one"), process("two")
    await two.informer.synced.wait()
    one.set("uid-1", 1)
    await eventually(lambda: "one" in two.registry.holders)
    store._expire("workers.one", store._revision)
    await eventually(lambda: "one" not in two.registry.holders)
    one.registry.announce()
    await eventually(lambda: "one" in two.registry.holders)


async def test_while_the_store_is_away_the_last_knowledge_stays_and_writing_is_tried_again(make, monkeypatch):
    process, store = make
    one, two = process("one"), process("two")
    await two.informer.synced.wait()
    one.set("uid-1", 1)
    await eventually(lambda: two.registry.find("uid-1"))

    async def away(*_args, **_kwargs):
        raise errors.Unavailable("the bus is away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "update", away)
        one.set("uid-2", 1)
        await asyncio.sleep(0.2)
        assert two.registry.find("uid-1").worker == "one"
        assert two.registry.find("uid-2") is None
    one.registry.announce()
    await eventually(lambda: two.registry.find("uid-2"))


async def test_whoever_waits_for_a_cluster_wakes_when_it_comes_here_or_elsewhere(make):
    process, _ = make
    one, two = process("one"), process("two")
    await two.informer.synced.wait()
    for source in (one, two):
        waiting = asyncio.create_task(two.registry.wait_for(f"uid-{source.worker}"))
        await asyncio.sleep(0)
        source.set(f"uid-{source.worker}", 1)
        async with asyncio.timeout(3):
            await waiting
    assert two.registry._waiting == {}


async def test_a_process_that_goes_takes_its_entry_with_it(make):
    process, store = make
    one, two = process("one"), process("two")
    await two.informer.synced.wait()
    one.set("uid-1", 1)
    await eventually(lambda: "one" in two.registry.holders)
    await one.registry.withdraw()
    await eventually(lambda: "one" not in two.registry.holders)
    one.registry.announce()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await two.registry.wait_for("uid-1")
    assert "one" not in two.registry.holders, "and it does not come back"
    with pytest.raises(errors.NotFound):
        await store.get("workers.one")
