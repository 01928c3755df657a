"""What the front door remembers of tokens: few of many, each only as long as it holds, and nothing of what may have been missed."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import errors
from libs.common.resources import codec
from libs.common.resources.identity import Token, TokenPrivate, TokenSpec
from libs.common.store.base import Entry
from libs.common.store.memory import MemoryStore
from services.auth_proxy.token_cache import ABSENT_S, NotRemembered, TokenCache
from tests.auth_proxy.door import meta
from tests.store.watching import eventually


def encoded(name: str, description: str = "") -> bytes:
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    spec = TokenSpec(user="ada", user_uid="u", expires_at=expires, description=description)
    return codec.encode(Token(metadata=meta(name), spec=spec, private=TokenPrivate(secret_hash="0" * 64)))


async def add(store: MemoryStore, name: str) -> None:
    await store.create(f"tokens.{name}", encoded(name))


async def remove(store: MemoryStore, name: str) -> None:
    entry = await store.get(f"tokens.{name}")
    await store.delete(entry.key, entry.value, entry.revision)


class SlowStore(MemoryStore):
    """Answers reads with what it had when it was asked, once it is let."""

    def __init__(self) -> None:
        super().__init__("identity")
        self.open = asyncio.Event()
        self.open.set()
        self.reads = 0

    async def get(self, key: str) -> Entry:
        self.reads += 1
        try:
            return await super().get(key)
        finally:
            await self.open.wait()


@asynccontextmanager
async def remembering(store: MemoryStore, **settings: int) -> AsyncIterator[TokenCache]:
    cache = TokenCache(store, **settings)
    task = asyncio.create_task(cache.run())
    try:
        await cache.live.wait()
        yield cache
    finally:
        await cache.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def known(cache: TokenCache, name: str) -> bool:
    for _ in range(20):
        try:
            return cache.find(name) is not None
        except NotRemembered as missing:
            await cache.fetch(missing.name)
    raise AssertionError("it never settles")


async def test_a_token_is_read_once_and_nothing_is_listed():
    store = SlowStore()
    for number in range(50):
        await add(store, f"t{number}")
    async with remembering(store) as cache:
        assert len(cache) == 0
        assert await known(cache, "t7")
        assert await known(cache, "t7")
        assert (len(cache), cache.reads) == (1, 1)


async def test_many_who_wait_for_one_token_cost_one_read():
    store = SlowStore()
    await add(store, "t1")
    async with remembering(store) as cache:
        assert await asyncio.gather(*(known(cache, "t1") for _ in range(100))) == [True] * 100
        assert cache.reads == 1


async def test_a_deleted_token_is_forgotten_at_once():
    store = MemoryStore("identity")
    await add(store, "t1")
    async with remembering(store) as cache:
        assert await known(cache, "t1")
        await remove(store, "t1")
        await eventually(lambda: len(cache) == 0)
        assert not await known(cache, "t1")


async def test_a_token_that_is_made_under_a_name_that_was_asked_for_counts_at_once():
    store = MemoryStore("identity")
    async with remembering(store) as cache:
        assert not await known(cache, "t1")
        await add(store, "t1")
        await eventually(lambda: cache.revision == 1)
        assert await known(cache, "t1")


async def test_what_was_deleted_while_the_watch_was_interrupted_is_refused():
    store = MemoryStore("identity")
    await add(store, "t1")
    async with remembering(store) as cache:
        assert await known(cache, "t1")
        store.interrupt()
        await remove(store, "t1")
        await eventually(lambda: len(cache) == 0)
        assert not await known(cache, "t1")


async def test_an_answer_that_was_overtaken_by_a_delete_is_not_remembered():
    store = SlowStore()
    await add(store, "t1")
    async with remembering(store) as cache:
        store.open.clear()
        fetching = asyncio.create_task(known(cache, "t1"))
        await eventually(lambda: store.reads == 1)
        entry = store._last["tokens.t1"]
        await store.delete(entry.key, entry.value, entry.revision)
        await eventually(lambda: cache.revision == 2)
        store.open.set()
        assert not await fetching


async def test_an_answer_that_was_asked_for_before_an_interruption_is_not_remembered():
    store = SlowStore()
    await add(store, "t1")
    async with remembering(store) as cache:
        store.open.clear()
        fetching = asyncio.create_task(known(cache, "t1"))
        await eventually(lambda: store.reads == 1)
        entry = store._last["tokens.t1"]
        store.interrupt()
        await store.delete(entry.key, entry.value, entry.revision)
        await eventually(lambda: cache.revision == 2)
        store.open.set()
        assert not await fetching


async def test_no_more_are_remembered_than_may_be_and_those_in_use_stay():
    store = MemoryStore("identity")
    for number in range(100):
        await add(store, f"t{number}")
    async with remembering(store, most=10) as cache:
        for number in range(100):
            assert await known(cache, f"t{number}")
            used = cache.find("t0") if number == 0 else cache._facts["t0"]
            assert used is not None
            used.used += 1.0
        assert len(cache) == 10
        assert cache.find("t0") is not None


async def test_bytes_are_bounded_too():
    store = MemoryStore("identity")
    for number in range(20):
        await store.create(f"tokens.t{number}", encoded(f"t{number}", "x" * 200))
    async with remembering(store, most_bytes=8 * 1024) as cache:
        for number in range(20):
            assert await known(cache, f"t{number}")
        assert 0 < len(cache) < 10
        assert cache._bytes <= 8 * 1024


async def test_what_has_not_the_form_of_a_name_is_not_asked_for():
    store = SlowStore()
    async with remembering(store) as cache:
        for name in ("", "A", "a.b", "a>b", "*", "x" * 64, "\ufffd"):
            assert cache.find(name) is None
        assert store.reads == 0


async def test_made_up_names_fill_neither_memory_nor_the_store():
    store = SlowStore()
    async with remembering(store, at_once=4, most_waiting=20) as cache:
        store.open.clear()
        answers = [asyncio.create_task(cache.fetch(f"x{number}")) for number in range(100)]
        await eventually(lambda: sum(answer.done() for answer in answers) == 80)
        assert store.reads == 4
        store.open.set()
        done = await asyncio.gather(*answers, return_exceptions=True)
        refused = [error for error in done if error is not None]
        assert len(refused) == 80
        assert all(isinstance(error, errors.Unavailable) and error.retry_after_s == 1 for error in refused)
        assert len(cache) == 0


async def test_an_absent_name_is_asked_for_again_after_a_moment():
    moment = 0.0
    store = SlowStore()
    cache = TokenCache(store, monotonic=lambda: moment)
    await cache.fetch("t1")
    assert cache.find("t1") is None
    moment = ABSENT_S + 0.1
    with pytest.raises(NotRemembered):
        cache.find("t1")


async def test_a_store_that_does_not_answer_is_a_503_and_not_a_refusal():
    class Broken(MemoryStore):
        async def get(self, key: str) -> Entry:
            raise errors.Unavailable("no leader")

    async with remembering(Broken("identity")) as cache:
        with pytest.raises(errors.Unavailable):
            await cache.fetch("t1")
        with pytest.raises(NotRemembered):
            cache.find("t1")


async def test_a_token_that_cannot_be_read_is_an_error_of_its_own_calls_alone():
    store = MemoryStore("identity")
    await store.create("tokens.t1", b"\xc1 no msgpack")
    await store.create("tokens.t2", msgpack.packb({"v": 1, "object": {"metadata": {}}}))
    async with remembering(store) as cache:
        for name in ("t1", "t2"):
            with pytest.raises(errors.Internal, match="cannot be read"):
                await cache.fetch(name)


NAMES = st.sampled_from(["t1", "t2", "t3"])
STEP = st.one_of(
    st.tuples(st.sampled_from(["add", "remove", "ask"]), NAMES),
    st.tuples(st.sampled_from(["interrupt", "breathe"]), st.just("")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=40))
def test_after_any_history_with_interruptions_what_counts_is_what_is_stored(history):
    async def live() -> None:
        store = MemoryStore("identity")
        asked: set[asyncio.Task[bool]] = set()
        async with remembering(store) as cache:
            for what, name in history:
                key = f"tokens.{name}"
                match what:
                    case "add" if not store._live_revision(key):
                        await add(store, name)
                    case "remove" if store._live_revision(key):
                        await remove(store, name)
                    case "ask":
                        asked.add(asyncio.create_task(known(cache, name)))
                    case "interrupt":
                        store.interrupt()
                    case "breathe":
                        await asyncio.sleep(0)
            await asyncio.gather(*asked)
            for _ in range(20):
                await asyncio.sleep(0)
            for name in ("t1", "t2", "t3"):
                assert await known(cache, name) == bool(store._live_revision(f"tokens.{name}"))

    asyncio.run(live())
