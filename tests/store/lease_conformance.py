"""What a lease promises, on every store: at most one holder at any moment, and somebody else soon after it stops."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.store.base import Store
from libs.common.store.lease import Lease
from tests.store.watching import eventually


class LeaseConformance:
    """Give it a fixture `store`: an empty bucket."""

    async def test_of_many_contenders_one_has_it(self, store: Store) -> None:
        leases = [Lease(store, "leases.a", f"replica-{n}", ttl_s=3) for n in range(5)]
        taken = await asyncio.gather(*(lease.acquire() for lease in leases))
        assert sum(taken) == 1
        assert sum(lease.is_held() for lease in leases) == 1

    async def test_a_released_lease_is_free_at_once(self, store: Store) -> None:
        one, two = Lease(store, "leases.a", "one", ttl_s=30), Lease(store, "leases.a", "two", ttl_s=30)
        assert await one.acquire()
        assert not await two.acquire()
        await one.release()
        assert not one.is_held()
        assert await two.acquire()
        assert two.token > one.token

    async def test_a_renewed_lease_outlives_its_first_term_and_one_that_is_not_renewed_ends(self, store: Store) -> None:
        one, two = Lease(store, "leases.a", "one", ttl_s=1), Lease(store, "leases.a", "two", ttl_s=1)
        assert await one.acquire()
        for _ in range(3):
            await asyncio.sleep(0.5)
            assert await one.renew()
            assert not await two.acquire()
        await asyncio.sleep(1.8)
        assert not one.is_held()
        assert await two.acquire()
        assert not await one.renew()

    async def test_who_lost_the_lease_is_told_when_renewing(self, store: Store) -> None:
        lease = Lease(store, "leases.a", "one", ttl_s=5)
        assert await lease.acquire()
        entry = await store.get("leases.a")
        await store.update("leases.a", b"somebody else", entry.revision, ttl_s=5)
        assert not await lease.renew()
        assert not lease.is_held()

    async def test_work_runs_on_one_replica_and_moves_when_that_stops(self, store: Store) -> None:
        running: set[str] = set()
        history: list[str] = []

        def work_of(name: str):
            async def work() -> None:
                assert not running
                running.add(name)
                history.append(name)
                try:
                    await asyncio.Event().wait()
                finally:
                    running.discard(name)

            return work

        tasks = {
            name: asyncio.create_task(Lease(store, "leases.a", name, ttl_s=1).run(work_of(name))) for name in ("a", "b")
        }
        await eventually(lambda: bool(history))
        await asyncio.sleep(1.5)
        assert len(history) == 1
        (first,) = history
        tasks[first].cancel()
        await eventually(lambda: len(history) == 2)
        assert set(history) == {"a", "b"}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert not running

    async def test_an_error_of_the_work_is_raised_and_the_lease_is_given_back(self, store: Store) -> None:
        async def fail() -> None:
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            await Lease(store, "leases.a", "one", ttl_s=10).run(fail)
        assert await Lease(store, "leases.a", "two", ttl_s=10).acquire()
