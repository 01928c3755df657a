"""Watches that began before this process: what the first listing of a bucket lets them go on with, and what it doesn't."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import errors
from libs.common.apiserver.history import NOTHING, ListingHistory
from libs.common.apiserver.watch import WatchCache
from libs.common.resources import codec
from libs.common.store.base import Entry
from libs.common.store.informer import Informer
from libs.common.store.memory import MemoryStore
from tests.apiserver.support import make_user

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WEEKS_AGO = NOW - timedelta(days=21)


def user_bytes(name, *, made=NOW, **labels):
    user = make_user(name)
    user.metadata.labels = labels
    user.metadata.creation_timestamp = made
    return codec.encode(user)


@asynccontextmanager
async def restarted(store, **limits):
    """A cache as a fresh gateway has it."""
    informer = Informer(store, "users", name="users")
    cache = WatchCache(informer, now=lambda: NOW, **limits)
    task = asyncio.create_task(informer.run(), name="informer")
    await cache.start()
    try:
        yield cache
    finally:
        cache.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def take(cache, revision, count, predicate=lambda _d: True, key=""):
    async with aclosing(cache.watch(revision, predicate, key=key)) as events:
        found = [await asyncio.wait_for(anext(events), 2) for _ in range(count)]
    return [(e.type, e.document["metadata"]["name"], int(e.document["metadata"]["resourceVersion"])) for e in found]


@pytest.fixture
async def store():
    """keeps@1, changes@2 and goes@3; then, unseen by the watcher, changes@4 and goes@5."""
    made = MemoryStore("identity")
    for name in ("keeps", "changes", "goes"):
        await made.create(f"users.{name}", user_bytes(name))
    await made.update("users.changes", user_bytes("changes", team="x"), 2)
    await made.delete("users.goes", user_bytes("goes"), 3)
    return made


async def test_a_watch_goes_on_over_a_restart_with_changes_and_deletes_and_then_live(store):
    async with restarted(store) as cache:
        await store.create("users.new", user_bytes("new"))
        assert await take(cache, 3, 3) == [("ADDED", "changes", 4), ("DELETED", "goes", 5), ("ADDED", "new", 6)]
        assert await take(cache, 4, 2) == [("DELETED", "goes", 5), ("ADDED", "new", 6)]
        assert await take(cache, 5, 1) == [("ADDED", "new", 6)]


async def test_what_does_not_match_now_may_have_matched_before_so_the_client_lists_again(store):
    async with restarted(store) as cache:
        with pytest.raises(errors.Expired):
            await take(cache, 3, 1, lambda d: d["metadata"]["name"] == "goes")
        # A name does not change: who watches one object has missed nothing of the others.
        assert await take(cache, 3, 1, lambda d: d["metadata"]["name"] == "goes", "users.goes") == [
            ("DELETED", "goes", 5)
        ]


async def test_a_revision_from_before_all_that_is_certainly_young_is_refused():
    store = MemoryStore("identity")
    await store.create("users.old", user_bytes("old", made=WEEKS_AGO))
    await store.create("users.gone", user_bytes("gone", made=WEEKS_AGO))
    await store.delete("users.gone", user_bytes("gone", made=WEEKS_AGO), 2)
    store.compact("users.gone")
    await store.create("users.young", user_bytes("young"))
    async with restarted(store) as cache:
        for lost in (1, 2, 3):
            with pytest.raises(errors.Expired):
                await take(cache, lost, 1)
        await store.create("users.new", user_bytes("new"))
        assert await take(cache, 4, 1) == [("ADDED", "new", 5)]


async def test_an_entry_whose_time_ran_out_and_a_listing_that_is_too_long_raise_the_floor(store):
    async with restarted(store, max_events=2) as cache:
        with pytest.raises(errors.Expired):
            await take(cache, 0, 1)
        assert await take(cache, 4, 1) == [("DELETED", "goes", 5)]
        for name in ("a", "b", "c"):
            await store.create(f"users.{name}", user_bytes(name))
        await cache.informer.wait_revision(8)
        with pytest.raises(errors.Expired):
            await take(cache, 4, 1)
    history = ListingHistory(100, 10**6)
    for entry in (Entry("users.a", user_bytes("a"), 1), Entry("users.b", b"", 2, deleted=True)):
        history.hear(entry)
    history.close("", NOW)
    assert history.floor == 2


@pytest.mark.parametrize(
    ("born", "made", "floor"),
    [
        (NOW - timedelta(days=1), NOW, 0),
        (NOW - timedelta(days=1), WEEKS_AGO, NOTHING),
        (NOW - timedelta(days=30), NOW, 7),
        (NOW - timedelta(days=30), WEEKS_AGO, NOTHING),
    ],
    ids=["a young bucket", "restored from a backup", "an old bucket, a young entry", "all of it old"],
)
def test_where_certainty_begins(born, made, floor):
    history = ListingHistory(100, 10**6)
    history.hear(Entry("users.a", user_bytes("a", made=made), 7))
    history.close(f"{born.isoformat()}/0", NOW)
    assert history.floor == floor


def test_a_listing_that_begins_again_is_heard_once():
    history = ListingHistory(100, 10**6)
    for revision in (1, 2, 3, 1, 2, 3, 4):
        history.hear(Entry(f"users.u{revision}", user_bytes("u"), revision))
    history.close("", NOW)
    assert [e.revision for e in history.after(1)] == [2, 3, 4]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=15), st.integers(0, 15))
async def test_whoever_goes_on_has_in_the_end_what_a_fresh_list_has(writes, at):
    store = MemoryStore("identity")
    known, position = {}, 0
    await store.create("users.first", user_bytes("first"))
    for number, (name, deleted) in enumerate(writes):
        if number == at:
            known = {k: e.revision for k, e in store._last.items() if not e.deleted}
            position = store._revision
        live = store._live_revision(f"users.{name}")
        if not deleted:
            await (
                store.update(f"users.{name}", user_bytes(name), live)
                if live
                else store.create(f"users.{name}", user_bytes(name))
            )
        elif live:
            await store.delete(f"users.{name}", user_bytes(name), live)
    if not position:
        known = {k: e.revision for k, e in store._last.items() if not e.deleted}
        position = store._revision
    async with restarted(store) as cache:
        async with aclosing(cache.watch(position, lambda _d: True, bookmark_every_s=0.001)) as events:
            async for event in events:
                if event.type == "BOOKMARK":
                    break
                key = f"users.{event.document['metadata']['name']}"
                known[key] = int(event.document["metadata"]["resourceVersion"])
                if event.type == "DELETED":
                    del known[key]
        assert known == {k: e.revision for k, e in cache.informer.entries.items()}
