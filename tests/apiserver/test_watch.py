"""The watch cache by itself: resuming, falling behind, bookmarks, and snapshots of the past."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import errors
from libs.common.apiserver.watch import WatchCache
from libs.common.resources import codec
from libs.common.store.base import Entry
from libs.common.store.informer import Change, Informer
from libs.common.store.memory import MemoryStore
from tests.apiserver.support import make_user


def everything(_document):
    return True


@pytest.fixture
async def world():
    store = MemoryStore("identity")
    informer = Informer(store, "users", name="users")
    task = asyncio.create_task(informer.run(), name="informer")
    cache = WatchCache(informer, max_events=5)
    await cache.start()

    async def put(name):
        revision = await store.create(f"users.{name}", codec.encode(make_user(name)))
        await informer.wait_revision(revision)
        return revision

    yield cache, put
    cache.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_goes_on_after_the_version_it_names(world):
    cache, put = world
    first = await put("a")
    await put("b")
    async with aclosing(cache.watch(first, everything)) as events:
        assert (await anext(events)).document["metadata"]["name"] == "b"
        await put("c")
        assert (await anext(events)).document["metadata"]["name"] == "c"
    assert cache.streams == 0


async def test_bookmarks_say_how_far_the_watch_is_and_pass_every_filter(world):
    cache, put = world
    async with aclosing(cache.watch(cache.informer.revision, lambda _d: False, bookmark_every_s=0.02)) as events:
        event = await anext(events)
        assert event.type == "BOOKMARK"
        revision = await put("a")
        while int(event.document["metadata"]["resourceVersion"]) < revision:
            event = await anext(events)
            assert event.type == "BOOKMARK"


async def test_a_reader_that_falls_off_the_ring_is_told_to_list_again(world):
    cache, put = world
    start = cache.informer.revision
    async with aclosing(cache.watch(start, everything)) as events:
        await put("a")
        await anext(events)
        for number in range(9):
            await put(f"b{number}")
        with pytest.raises(errors.Expired):
            await anext(events)
    with pytest.raises(errors.Expired):
        await anext(cache.watch(start, everything))
    with pytest.raises(errors.Expired):
        cache.snapshot(start + 1)


async def test_a_check_that_raises_ends_the_watch_when_it_is_woken(world):
    cache, _ = world
    allowed = [True]

    def check():
        if not allowed[0]:
            raise errors.Denied("no more")

    async with aclosing(cache.watch(cache.informer.revision, everything, check=check)) as events:
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0.01)
        allowed[0] = False
        cache.wake()
        with pytest.raises(errors.Denied):
            await waiting


class _StillInformer:
    """An informer that a test changes by hand."""

    def __init__(self):
        self.entries, self.revision, self.epoch, self.synced = {}, 0, "", asyncio.Event()
        self.synced.set()

    def hear_listing(self, listener):
        return False

    def subscribe(self, handler, replay=True):
        self.handler = handler
        return lambda: None

    def write(self, key, deleted):
        before = self.entries.get(key)
        if deleted and before is None:
            return
        self.revision += 1
        entry = Entry(key, codec.encode(make_user(key)), self.revision, deleted)
        if deleted:
            del self.entries[key]
        else:
            self.entries[key] = entry
        self.handler(Change(key, before, None if deleted else entry, entry))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=20))
async def test_every_snapshot_of_the_past_is_what_was_there_then(writes):
    informer = _StillInformer()
    cache = WatchCache(informer)
    await cache.start()
    history = [(0, {})]
    for key, deleted in writes:
        informer.write(key, deleted)
        history.append((informer.revision, dict(informer.entries)))
    for revision, entries in history:
        found, at = cache.snapshot(revision)
        assert at == revision
        assert {e.key: e for e in found} == entries
