"""The promises of `libs.common.store.base`, as a suite for every implementation.

A module that has one subclasses `StoreConformance` and gives it a fixture `bucket`: a `Bucket`, empty, made for each test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from libs.common import errors
from libs.common.store.base import Entry, Put, Store, Synced, Vanished
from tests.store.watching import Watching


@dataclass
class Bucket:
    """A store under test, and what may happen to it."""

    store: Store
    interrupt: Callable[[], Awaitable[None]]
    """Break all open watches."""
    compact: Callable[[str], Awaitable[None]]
    """Remove a key's last entry without a trace."""
    recreate: Callable[[], Awaitable[None]]
    """Delete the bucket and make it anew."""


class StoreConformance:
    # ── writes ──

    async def test_a_created_entry_can_be_read_at_its_revision(self, bucket: Bucket) -> None:
        revision = await bucket.store.create("users.ann", b"1")
        assert await bucket.store.get("users.ann") == Entry("users.ann", b"1", revision)

    async def test_revisions_rise_over_the_whole_bucket(self, bucket: Bucket) -> None:
        first = await bucket.store.create("users.ann", b"1")
        second = await bucket.store.create("tokens.t1", b"1")
        third = await bucket.store.update("users.ann", b"2", first)
        assert first < second < third

    async def test_what_exists_cannot_be_created(self, bucket: Bucket) -> None:
        await bucket.store.create("users.ann", b"1")
        with pytest.raises(errors.AlreadyExists):
            await bucket.store.create("users.ann", b"2")
        assert (await bucket.store.get("users.ann")).value == b"1"

    async def test_what_was_never_there_is_not_found(self, bucket: Bucket) -> None:
        with pytest.raises(errors.NotFound):
            await bucket.store.get("users.nobody")

    async def test_an_update_needs_the_exact_revision(self, bucket: Bucket) -> None:
        first = await bucket.store.create("users.ann", b"1")
        second = await bucket.store.update("users.ann", b"2", first)
        for wrong in (first, second + 1):
            with pytest.raises(errors.Conflict):
                await bucket.store.update("users.ann", b"3", wrong)
        assert await bucket.store.get("users.ann") == Entry("users.ann", b"2", second)

    async def test_an_update_of_nothing_is_a_conflict(self, bucket: Bucket) -> None:
        for revision in (0, 1):
            with pytest.raises(errors.Conflict):
                await bucket.store.update("users.ann", b"1", revision)
        with pytest.raises(errors.NotFound):
            await bucket.store.get("users.ann")

    async def test_a_deleted_entry_is_not_found_and_can_be_created_again(self, bucket: Bucket) -> None:
        first = await bucket.store.create("users.ann", b"1")
        tombstone = await bucket.store.delete("users.ann", b"last", first)
        with pytest.raises(errors.NotFound):
            await bucket.store.get("users.ann")
        assert await bucket.store.create("users.ann", b"2") > tombstone > first

    async def test_a_delete_needs_the_exact_revision(self, bucket: Bucket) -> None:
        first = await bucket.store.create("users.ann", b"1")
        await bucket.store.update("users.ann", b"2", first)
        with pytest.raises(errors.Conflict):
            await bucket.store.delete("users.ann", b"1", first)
        assert (await bucket.store.get("users.ann")).value == b"2"

    async def test_a_large_value_comes_back_whole(self, bucket: Bucket) -> None:
        value = bytes(range(256)) * 2048
        await bucket.store.create("users.large", value)
        assert (await bucket.store.get("users.large")).value == value

    async def test_what_is_no_key_is_refused(self, bucket: Bucket) -> None:
        for wrong in ("", "Users.ann", "users..ann", "users.*", "users.>", "users.a b", ".users", "users.", "x" * 600):
            with pytest.raises(ValueError):
                await bucket.store.create(wrong, b"1")

    async def test_no_increment_is_lost_among_many_writers(self, bucket: Bucket) -> None:
        await bucket.store.create("counters.c", b"0")

        async def increment() -> None:
            while True:
                entry = await bucket.store.get("counters.c")
                try:
                    await bucket.store.update("counters.c", str(int(entry.value) + 1).encode(), entry.revision)
                except errors.Conflict:
                    await asyncio.sleep(0)
                else:
                    return

        await asyncio.gather(*(increment() for _ in range(12)))
        assert (await bucket.store.get("counters.c")).value == b"12"

    async def test_of_many_creators_one_wins(self, bucket: Bucket) -> None:
        attempts = [bucket.store.create("users.ann", str(n).encode()) for n in range(12)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        assert sum(isinstance(outcome, int) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, errors.AlreadyExists) for outcome in outcomes) == 11

    # ── time to live ──

    async def test_an_entry_with_a_time_to_live_goes_by_itself_and_the_watch_says_so(self, bucket: Bucket) -> None:
        watching = Watching(bucket.store.watch())
        await watching.until_synced()
        await bucket.store.create("leases.a", b"me", ttl_s=1)
        assert (await watching.entry()).value == b"me"
        tombstone = await watching.entry()
        assert (tombstone.key, tombstone.deleted) == ("leases.a", True)
        with pytest.raises(errors.NotFound):
            await bucket.store.get("leases.a")
        assert await bucket.store.create("leases.a", b"you") > tombstone.revision
        await watching.close()

    async def test_an_update_without_a_time_to_live_makes_an_entry_stay(self, bucket: Bucket) -> None:
        revision = await bucket.store.create("leases.a", b"1", ttl_s=1)
        await bucket.store.update("leases.a", b"2", revision)
        await asyncio.sleep(1.6)
        assert (await bucket.store.get("leases.a")).value == b"2"

    # ── batches ──

    async def test_a_batch_writes_all(self, bucket: Bucket) -> None:
        ann = await bucket.store.create("users.ann", b"1")
        bob = await bucket.store.create("users.bob", b"1")
        last = await bucket.store.batch(
            [Put("users.ann", b"2", ann), Put("users.eve", b"1", 0), Put("users.bob", b"1", bob, deleted=True)]
        )
        assert (await bucket.store.get("users.ann")).value == b"2"
        assert (await bucket.store.get("users.eve")).revision == last - 1
        with pytest.raises(errors.NotFound):
            await bucket.store.get("users.bob")

    async def test_a_batch_with_one_conflict_writes_nothing(self, bucket: Bucket) -> None:
        ann = await bucket.store.create("users.ann", b"1")
        await bucket.store.create("users.bob", b"1")
        for wrong in (Put("users.ann", b"3", ann + 1), Put("users.bob", b"3", 0), Put("users.nobody", b"3", 1)):
            with pytest.raises(errors.Conflict):
                await bucket.store.batch([Put("users.new", b"1", 0), wrong, Put("users.other", b"1")])
        for absent in ("users.new", "users.other"):
            with pytest.raises(errors.NotFound):
                await bucket.store.get(absent)

    async def test_in_a_batch_a_tombstone_counts_as_absent(self, bucket: Bucket) -> None:
        ann = await bucket.store.create("users.ann", b"1")
        await bucket.store.delete("users.ann", b"1", ann)
        last = await bucket.store.batch([Put("users.bob", b"1", 0), Put("users.ann", b"2", 0)])
        assert await bucket.store.get("users.ann") == Entry("users.ann", b"2", last)

    async def test_a_batch_without_a_revision_writes_over_whatever_is_there(self, bucket: Bucket) -> None:
        await bucket.store.create("users.ann", b"1")
        last = await bucket.store.batch([Put("users.ann", b"2")])
        assert await bucket.store.get("users.ann") == Entry("users.ann", b"2", last)

    async def test_a_long_batch_is_one_piece(self, bucket: Bucket) -> None:
        watching = Watching(bucket.store.watch())
        await watching.until_synced()
        last = await bucket.store.batch([Put(f"nodes.n{n}", b"x", 0) for n in range(300)])
        seen = [await watching.entry() for _ in range(300)]
        assert [e.revision for e in seen] == list(range(last - 299, last + 1))
        await watching.close()

    async def test_what_is_no_batch_is_refused(self, bucket: Bucket) -> None:
        for wrong in ([], [Put("users.a", b"1"), Put("users.a", b"2")], [Put(f"a.n{n}", b"") for n in range(1001)]):
            with pytest.raises(ValueError):
                await bucket.store.batch(wrong)

    # ── watches ──

    async def test_a_watch_of_an_empty_bucket_is_in_sync_at_once(self, bucket: Bucket) -> None:
        watching = Watching(bucket.store.watch())
        synced = await watching.next()
        assert isinstance(synced, Synced)
        assert synced.revision == 0
        await watching.close()

    async def test_a_watch_yields_the_last_entry_of_each_key_in_order_and_then_what_follows(
        self, bucket: Bucket
    ) -> None:
        ann = await bucket.store.create("users.ann", b"1")
        bob = await bucket.store.create("users.bob", b"1")
        eve = await bucket.store.create("users.eve", b"1")
        ann = await bucket.store.update("users.ann", b"2", ann)
        gone = await bucket.store.delete("users.bob", b"bye", bob)
        watching = Watching(bucket.store.watch())
        items, synced = await watching.until_synced()
        assert items == [
            Entry("users.eve", b"1", eve),
            Entry("users.ann", b"2", ann),
            Entry("users.bob", b"bye", gone, deleted=True),
        ]
        assert synced.revision == gone
        later = await bucket.store.update("users.eve", b"2", eve)
        assert await watching.entry() == Entry("users.eve", b"2", later)
        await watching.close()

    async def test_a_watch_with_a_prefix_yields_only_what_is_below_it(self, bucket: Bucket) -> None:
        await bucket.store.create("users.ann", b"1")
        await bucket.store.create("usersandmore.x", b"1")
        await bucket.store.create("users", b"1")
        last = await bucket.store.create("tokens.t1", b"1")
        watching = Watching(bucket.store.watch("users"))
        items, synced = await watching.until_synced()
        assert [i.key for i in items] == ["users.ann"]
        assert synced.revision == last
        await bucket.store.create("tokens.t2", b"1")
        await bucket.store.create("users.bob", b"1")
        assert (await watching.entry()).key == "users.bob"
        await watching.close()

    async def test_an_interrupted_watch_misses_nothing(self, bucket: Bucket) -> None:
        watching = Watching(bucket.store.watch())
        await watching.until_synced()
        await bucket.interrupt()
        ann = await bucket.store.create("users.ann", b"1")
        items = [await watching.next()]
        while not (isinstance(items[-1], Synced) and items[-1].revision >= ann):
            items.append(await watching.next())
        assert Entry("users.ann", b"1", ann) in items
        await watching.close()

    async def test_a_key_whose_tombstone_went_while_the_watch_was_away_vanishes(self, bucket: Bucket) -> None:
        ann = await bucket.store.create("users.ann", b"1")
        await bucket.store.create("users.bob", b"1")
        watching = Watching(bucket.store.watch())
        await watching.until_synced()
        await bucket.interrupt()
        await bucket.store.delete("users.ann", b"1", ann)
        await bucket.compact("users.ann")
        items: list[object] = []
        while not any(isinstance(i, Vanished) or (isinstance(i, Entry) and i.deleted) for i in items):
            items.append(await watching.next())
        assert {i.key for i in items if isinstance(i, (Entry, Vanished))} == {"users.ann"}
        await watching.close()

    async def test_a_bucket_that_was_made_anew_is_listed_from_its_start(self, bucket: Bucket) -> None:
        for name in ("ann", "bob", "eve"):
            await bucket.store.create(f"users.{name}", b"1")
        watching = Watching(bucket.store.watch())
        _items, before = await watching.until_synced()
        await bucket.recreate()
        revision = await bucket.store.create("users.ann", b"anew")
        items: list[Entry | Vanished] = []
        after = before
        while after.epoch == before.epoch or after.revision < revision:
            more, after = await watching.until_synced()
            items += more
            if after.epoch != before.epoch and after.revision < revision:
                items.append(await watching.entry())
                break
        assert Entry("users.ann", b"anew", revision) in items
        assert {"users.bob", "users.eve"} <= {i.key for i in items if isinstance(i, Vanished)}
        await watching.close()

    # ── changes ──

    async def test_changes_list_nothing_and_tell_every_later_write_in_order(self, bucket: Bucket) -> None:
        ann = await bucket.store.create("users.ann", b"1")
        changes = Watching(bucket.store.changes("users"))
        before, synced = await changes.until_synced()
        assert before == []
        assert synced.revision >= ann
        second = await bucket.store.update("users.ann", b"2", ann)
        assert await changes.entry() == Entry("users.ann", b"2", second)
        await bucket.store.create("tokens.t1", b"1")
        third = await bucket.store.delete("users.ann", b"last", second)
        assert await changes.entry() == Entry("users.ann", b"last", third, deleted=True)
        await changes.close()

    async def test_after_an_interruption_changes_say_so_and_what_was_written_before_can_be_read(
        self, bucket: Bucket
    ) -> None:
        ann = await bucket.store.create("users.ann", b"1")
        changes = Watching(bucket.store.changes())
        await changes.until_synced()
        await bucket.interrupt()
        await bucket.store.delete("users.ann", b"1", ann)
        _, synced = await changes.until_synced()
        assert synced.listing == 2
        with pytest.raises(errors.NotFound):
            await bucket.store.get("users.ann")
        bob = await bucket.store.create("users.bob", b"1")
        while (entry := await changes.entry()).revision < bob:
            pass
        assert entry.key == "users.bob"
        await changes.close()

    async def test_changes_go_on_in_the_next_life_of_a_bucket(self, bucket: Bucket) -> None:
        await bucket.store.create("users.ann", b"1")
        changes = Watching(bucket.store.changes())
        _, first = await changes.until_synced()
        await bucket.recreate()
        _, second = await changes.until_synced()
        assert second.epoch != first.epoch
        await bucket.store.create("users.bob", b"1")
        assert (await changes.entry()).key == "users.bob"
        await changes.close()

    # ── scans ──

    async def test_a_scan_yields_the_last_entry_of_every_key_in_order_and_ends(self, bucket: Bucket) -> None:
        ann = await bucket.store.create("users.ann", b"1")
        bob = await bucket.store.create("users.bob", b"1")
        await bucket.store.create("tokens.t1", b"1")
        second = await bucket.store.update("users.ann", b"2", ann)
        gone = await bucket.store.delete("users.bob", b"last", bob)
        expected = [Entry("users.ann", b"2", second), Entry("users.bob", b"last", gone, deleted=True)]
        assert [entry async for entry in bucket.store.scan("users")] == expected
        assert [entry async for entry in bucket.store.scan("users", after=second)] == expected[1:]
        assert [entry async for entry in bucket.store.scan("users", after=gone)] == []
        assert len([entry async for entry in bucket.store.scan()]) == 3

    async def test_a_scan_leaves_nothing_out_that_is_written_meanwhile(self, bucket: Bucket) -> None:
        revisions = {f"users.u{number}": await bucket.store.create(f"users.u{number}", b"1") for number in range(1500)}
        seen: dict[str, Entry] = {}
        async for entry in bucket.store.scan("users"):
            if not seen:
                await bucket.interrupt()
                moved = await bucket.store.update("users.u1400", b"2", revisions["users.u1400"])
                await bucket.store.delete("users.u1499", b"1", revisions["users.u1499"])
            seen[entry.key] = entry
        assert seen.keys() == revisions.keys()
        assert seen["users.u1400"] == Entry("users.u1400", b"2", moved)
        assert seen["users.u1499"].deleted
