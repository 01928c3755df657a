from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

from libs.common.access.live import SOURCES, LiveGrants
from libs.common.resources import codec
from libs.common.resources.registry import BY_MODEL, BY_PLURAL
from libs.common.store.informer import Informer
from libs.common.store.memory import MemoryStore
from tests.access import made
from tests.access.hub import end

ADA = made.user("ada")
OWNER = made.role("owner", "cluster", hub=[made.hub_rule("get", "nodes")])


class World:
    """Stores of all kinds that grants are made of, and grants that follow them."""

    def __init__(self, clock) -> None:
        self.stores = {t.bucket: MemoryStore(t.bucket) for t in (BY_PLURAL[p] for p in SOURCES)}
        self.informers = {p: Informer(self.stores[BY_PLURAL[p].bucket], p) for p in SOURCES}
        self.live = LiveGrants(self.informers, clock)

    async def put(self, *resources) -> None:
        for resource in resources:
            kind = BY_MODEL[type(resource)]
            store, key = self.stores[kind.bucket], kind.key(resource.name)
            entry = self.informers[kind.plural].get(key)
            value = codec.encode(resource)
            revision = await (store.update(key, value, entry.revision) if entry else store.create(key, value))
            await self.informers[kind.plural].wait_revision(revision)

    async def delete(self, resource) -> None:
        kind = BY_MODEL[type(resource)]
        entry = self.informers[kind.plural].entries[kind.key(resource.name)]
        revision = await self.stores[kind.bucket].delete(entry.key, entry.value, entry.revision)
        await self.informers[kind.plural].wait_revision(revision)

    def groups(self) -> tuple[str, ...]:
        return self.live.current.synthetic_groups(made.caller(ADA), "east", "uid-east")


@asynccontextmanager
async def world(clock, *, run=False):
    w = World(clock)
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(i.run(), name=n) for n, i in w.informers.items()]
        if run:
            started.append(tasks.create_task(w.live.run(), name="grants"))
        for informer in w.informers.values():
            await informer.synced.wait()
        try:
            yield w
        finally:
            w.live.close()
            await end(started)


async def test_a_grant_and_a_revocation_count_on_the_next_call(clock):
    async with world(clock) as w:
        assert w.live.synced
        bound = made.binding(ADA, "owner", cluster="east")
        await w.put(ADA, OWNER, made.cluster("east"), bound)
        assert w.groups() == ("herdsman:cluster:east:owner",)
        await w.delete(bound)
        assert w.groups() == ()


async def test_disabling_a_user_and_deleting_a_cluster_count_on_the_next_call(clock):
    async with world(clock) as w:
        east = made.cluster("east")
        await w.put(ADA, OWNER, east, made.binding(ADA, "owner", cluster="east"))
        await w.put(made.user("ada", enabled=False))
        assert w.groups() == ()
        await w.put(ADA)
        assert w.groups()
        await w.delete(east)
        assert w.groups() == ()


async def test_expiry_counts_at_its_moment_without_any_change(clock):
    async with world(clock) as w:
        until = clock() + timedelta(seconds=60)
        await w.put(ADA, OWNER, made.cluster("east"), made.binding(ADA, "owner", cluster="east", until=until))
        assert w.groups()
        clock.forward(59.999)
        assert w.groups()
        clock.forward(0.001)
        assert w.groups() == ()
        assert w.live.current.next_expiry is None


async def test_prolonging_a_binding_moves_its_expiry(clock):
    async with world(clock) as w:
        first, later = clock() + timedelta(seconds=10), clock() + timedelta(seconds=100)
        await w.put(ADA, OWNER, made.cluster("east"), made.binding(ADA, "owner", cluster="east", until=first))
        await w.put(made.binding(ADA, "owner", cluster="east", until=later))
        clock.forward(50)
        assert w.groups()
        clock.forward(50)
        assert w.groups() == ()


async def test_editing_a_role_counts_and_heartbeats_compile_nothing(clock):
    async with world(clock) as w:
        east = made.cluster("east")
        await w.put(ADA, OWNER, east, made.binding(ADA, "owner", cluster="east"))
        before = w.live.current
        assert before.is_allowed(made.caller(ADA), "get", "nodes", "n", "east")
        east.status.node_count = 5
        seen = made.user("ada")
        seen.status.last_login = clock()
        await w.put(east, seen)
        assert w.live.current is before
        await w.put(made.role("owner", "cluster"))
        assert not w.live.current.is_allowed(made.caller(ADA), "get", "nodes", "n", "east")


async def test_an_object_that_cannot_be_read_gives_nothing(clock):
    async with world(clock) as w:
        bound = made.binding(ADA, "owner", cluster="east")
        await w.put(ADA, OWNER, made.cluster("east"), bound)
        store, key = w.stores["authz"], f"roletemplatebindings.{bound.name}"
        revision = await store.update(key, b"\x00rubbish", (await store.get(key)).revision)
        await w.informers["roletemplatebindings"].wait_revision(revision)
        assert w.groups() == ()


async def test_subscribers_are_told_of_changes_and_of_expiry_and_one_that_fails_stops_nobody(clock, eventually):
    async with world(clock, run=True) as w:
        told = []

        def fail(_grants):
            raise RuntimeError("a listener of somebody else")

        w.live.subscribe(fail)
        stop = w.live.subscribe(told.append)
        until = clock() + timedelta(seconds=1)
        await w.put(ADA, OWNER, made.cluster("east"), made.binding(ADA, "owner", cluster="east", until=until))
        caller = made.caller(ADA)
        await eventually(lambda: told and told[-1].synthetic_groups(caller, "east", "uid-east"))
        clock.forward(1)
        await eventually(lambda: told[-1].synthetic_groups(caller, "east", "uid-east") == ())
        stop()
        count = len(told)
        await w.put(made.cluster("west"))
        await eventually(lambda: "west" in w.live.current.clusters)
        await asyncio.sleep(0)
        assert len(told) == count
