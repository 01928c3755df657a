"""Faults with an invariant each: no acknowledged write is lost, no watch misses or invents, and all comes back by itself."""

from __future__ import annotations

import asyncio
import itertools
import random
import time

import pytest

from integration.harness.nats import NatsServer
from integration.nats.faults import Writer, following, read_all, replay
from integration.nats.tcp_proxy import TcpProxy, proxy_to
from libs.common import errors
from libs.common.bus.connection import Connection
from libs.common.bus.jetstream_api import JetStreamApi
from libs.common.bus.nats import connect
from libs.common.contracts.permissions import stream_of
from libs.common.store.base import Put
from libs.common.store.jetstream import JetStreamStore
from tests.store.watching import eventually


async def test_a_watch_goes_on_within_five_seconds_of_a_killed_servers_restart(own_server: NatsServer) -> None:
    async with (
        connect(own_server.connect_as("administration")) as bus,
        connect(own_server.connect_as("identity")) as reader,
    ):
        store = JetStreamStore(bus, "identity")
        await store.ensure()
        gone = await store.create("users.gone", b"1")
        async with following(JetStreamStore(reader, "identity")) as (informer, changes):
            await eventually(lambda: len(informer.entries) == 1)
            await asyncio.to_thread(own_server.kill)
            await eventually(lambda: not bus.connected)
            await asyncio.to_thread(own_server.start)
            back = time.monotonic()
            await store.delete("users.gone", b"1", gone)
            await store.create("users.new", b"2")
            await eventually(lambda: set(informer.entries) == {"users.new"})
            assert time.monotonic() - back < 5
            assert replay(changes) == {"users.new": b"2"}


async def test_no_acknowledged_write_is_lost_when_the_server_is_killed_again_and_again(own_server: NatsServer) -> None:
    async with connect(own_server.connect_as("administration")) as bus:
        store = JetStreamStore(bus, "identity")
        await store.ensure()
        writers = [Writer(store, f"w{n}") for n in range(8)]
        async with following(store) as (informer, changes):
            tasks = [asyncio.create_task(writer.run()) for writer in writers]
            for _ in range(4):
                await asyncio.sleep(0.7)
                await asyncio.to_thread(own_server.kill)
                await asyncio.sleep(0.2)
                await asyncio.to_thread(own_server.start)
            await asyncio.sleep(1)
            for writer in writers:
                writer.stop()
            await asyncio.gather(*tasks)
            stored = await read_all(bus, "identity")
            certain = {k: v for w in writers for k, v in w.acknowledged.items() if k not in w.unknown}
            assert len(certain) > 200
            assert {k: stored.get(k) for k in certain} == certain
            await eventually(lambda: {k: e.value for k, e in informer.entries.items()} == stored)
            assert replay(changes) == stored


@pytest.mark.parametrize("operation", ["create", "update", "delete", "batch", "create over a tombstone"])
async def test_a_write_whose_answer_is_lost_is_found_to_be_done(
    server: NatsServer, bucket_name: str, operation: str
) -> None:
    """The proxy lets the question through and throws the answer away, then the connection breaks."""
    async with (
        proxy_to(server.port) as proxy,
        connect(server.connect_as("administration")) as admin,
        connect(server.connect_as("administration", server=proxy.url)) as bus,
    ):
        store, sure = JetStreamStore(bus, bucket_name), JetStreamStore(admin, bucket_name)
        await sure.ensure()
        ann = await sure.create("users.ann", b"op-1")
        eve = await sure.create("users.eve", b"op-1")
        eve = await sure.delete("users.eve", b"op-1", eve)
        writes = {
            "create": lambda: store.create("users.bob", b"op-2"),
            "update": lambda: store.update("users.ann", b"op-2", ann),
            "delete": lambda: store.delete("users.ann", b"op-1", ann),
            "batch": lambda: store.batch([Put("users.ann", b"op-2", ann), Put("users.bob", b"op-2", 0)]),
            "create over a tombstone": lambda: store.create("users.eve", b"op-2"),
        }
        if operation in ("batch", "create over a tombstone"):
            # Both need an answer before the decisive question: only what comes after it is lost.
            store.api = _Swallowing(bus.connection, proxy, 2)
        else:
            proxy.swallow_answers(True)
        writing = asyncio.create_task(writes[operation]())
        await _until_written(sure, eve + 1)
        await asyncio.sleep(0.1)
        assert not writing.done()
        proxy.cut()
        proxy.swallow_answers(False)
        revision = await writing
        info = await sure.api.call(f"STREAM.INFO.{stream_of(bucket_name)}")
        assert info["state"]["last_seq"] == revision == eve + (2 if operation == "batch" else 1)
        await sure.api.call(f"STREAM.DELETE.{stream_of(bucket_name)}")


class _Swallowing(JetStreamApi):
    """Throws answers away from the `nth` publish on, or from the commit of a batch on."""

    def __init__(self, connection: Connection, proxy: TcpProxy, nth: int) -> None:
        super().__init__(connection)
        self._proxy = proxy
        self._left = nth

    async def publish(self, *args: object, **kwargs: object) -> int:
        self._left -= 1
        if self._left == 0:
            self._proxy.swallow_answers(True)
        return await super().publish(*args, **kwargs)

    async def publish_batch(self, *args: object, **kwargs: object) -> int:
        original = self.connection.request

        async def request(subject: str, data: bytes, **options: object) -> object:
            if options.get("headers", {}).get("Nats-Batch-Commit"):
                self._proxy.swallow_answers(True)
            return await original(subject, data, **options)

        if self._left:
            self._left = 0
            self.connection.request = request
        try:
            return await super().publish_batch(*args, **kwargs)
        finally:
            self.connection.request = original


async def _until_written(store: JetStreamStore, sequence: int) -> None:
    async with asyncio.timeout(10):
        info = await store.api.call(f"STREAM.INFO.{stream_of(store.bucket)}")
        while info["state"]["last_seq"] < sequence:
            await asyncio.sleep(0.02)
            info = await store.api.call(f"STREAM.INFO.{stream_of(store.bucket)}")


async def test_no_increment_is_lost_or_done_twice_over_a_network_that_loses_answers(
    server: NatsServer, bucket_name: str
) -> None:
    """Each writer adds one again and again; answers are thrown away and connections cut at random moments."""
    async with (
        proxy_to(server.port) as proxy,
        connect(server.connect_as("administration")) as admin,
        connect(server.connect_as("administration", server=proxy.url)) as bus,
    ):
        sure, store = JetStreamStore(admin, bucket_name), JetStreamStore(bus, bucket_name)
        await sure.ensure()
        await sure.create("counters.c", b"0 start")
        done: list[int] = []
        unknown: list[int] = []
        stop = asyncio.Event()

        async def increment(name: int) -> None:
            for number in itertools.count():
                if stop.is_set():
                    return
                try:
                    entry = await store.get("counters.c")
                    value = int(entry.value.split()[0]) + 1
                    await store.update("counters.c", f"{value} op-{name}-{number}".encode(), entry.revision)
                except errors.Timeout:
                    unknown.append(name)
                except (errors.Conflict, errors.Unavailable):
                    await asyncio.sleep(random.uniform(0, 0.01))
                else:
                    done.append(value)

        async with asyncio.TaskGroup() as tasks:
            for name in range(4):
                tasks.create_task(increment(name))
            for _ in range(12):
                await asyncio.sleep(random.uniform(0.05, 0.3))
                proxy.swallow_answers(True)
                await asyncio.sleep(random.uniform(0.0, 0.02))
                proxy.cut()
                proxy.swallow_answers(False)
            await asyncio.sleep(1)
            stop.set()
        final = int((await sure.get("counters.c")).value.split()[0])
        assert len(set(done)) == len(done)
        assert len(done) > 50
        assert len(done) <= final <= len(done) + len(unknown)
        await sure.api.call(f"STREAM.DELETE.{stream_of(bucket_name)}")


async def test_a_watch_notices_within_five_seconds_that_its_consumer_was_deleted(
    server: NatsServer, bucket_name: str
) -> None:
    async with connect(server.connect_as("administration")) as bus:
        store, stream = JetStreamStore(bus, bucket_name), stream_of(bucket_name)
        await store.ensure()
        async with following(store) as (informer, changes):
            await informer.synced.wait()
            (consumer,) = (await store.api.call(f"CONSUMER.NAMES.{stream}"))["consumers"]
            await store.api.call(f"CONSUMER.DELETE.{stream}.{consumer}")
            began = time.monotonic()
            await store.create("users.ann", b"1")
            await eventually(lambda: "users.ann" in informer.entries)
            assert time.monotonic() - began < 5
            assert replay(changes) == {"users.ann": b"1"}
        assert (await store.api.call(f"CONSUMER.NAMES.{stream}"))["consumers"] in (None, [])
        await store.api.call(f"STREAM.DELETE.{stream}")


async def test_a_recreated_bucket_is_noticed(server: NatsServer, bucket_name: str) -> None:
    async with connect(server.connect_as("administration")) as bus:
        store, stream = JetStreamStore(bus, bucket_name), stream_of(bucket_name)
        await store.ensure()
        for n in range(30):
            await store.create(f"users.u{n}", b"old")
        async with following(store) as (informer, changes):
            await eventually(lambda: len(informer.entries) == 30)
            epoch = informer.epoch
            await store.api.call(f"STREAM.DELETE.{stream}")
            await store.ensure()
            await store.create("users.u1", b"new")
            await eventually(lambda: {k: e.value for k, e in informer.entries.items()} == {"users.u1": b"new"})
            assert informer.epoch != epoch
            assert informer.revision == 1
            assert replay(changes) == {"users.u1": b"new"}
        await store.api.call(f"STREAM.DELETE.{stream}")


async def test_a_stalled_connection_is_replaced_and_nothing_is_missed(server: NatsServer, bucket_name: str) -> None:
    async with (
        proxy_to(server.port) as proxy,
        connect(server.connect_as("administration")) as writing,
        connect(server.connect_as("administration", server=proxy.url)) as reading,
    ):
        store = JetStreamStore(writing, bucket_name)
        await store.ensure()
        async with following(JetStreamStore(reading, bucket_name)) as (informer, changes):
            await informer.synced.wait()
            proxy.stall()
            for n in range(20):
                await store.create(f"users.u{n}", b"1")
            await asyncio.sleep(6)
            age = informer.age_s()
            assert age is not None
            assert age > 5
            assert informer.entries == {}
            proxy.cut()
            proxy.flow()
            flowing = time.monotonic()
            await eventually(lambda: len(informer.entries) == 20)
            assert time.monotonic() - flowing < 5
            assert len(replay(changes)) == 20
        await store.api.call(f"STREAM.DELETE.{stream_of(bucket_name)}")


async def test_a_server_that_stands_still_is_noticed_and_requests_fail_in_time(own_server: NatsServer) -> None:
    async with connect(own_server.connect_as("administration")) as bus:
        store = JetStreamStore(bus, "identity", budget_s=3)
        await store.ensure()
        own_server.pause()
        began = time.monotonic()
        with pytest.raises(errors.Timeout):
            await store.create("users.ann", b"op-1")
        with pytest.raises(errors.Unavailable):
            await store.get("users.ann")
        assert time.monotonic() - began < 10
        await eventually(lambda: not bus.connected)
        own_server.resume()
        await eventually(lambda: bus.connected)
        await JetStreamStore(bus, "identity").create("users.bob", b"op-2")


async def test_a_full_bucket_refuses_at_once_and_recovers_after_a_delete(server: NatsServer, bucket_name: str) -> None:
    async with connect(server.connect_as("administration")) as bus:
        store, stream = JetStreamStore(bus, bucket_name), stream_of(bucket_name)
        await store.ensure()
        info = await store.api.call(f"STREAM.INFO.{stream}")
        await store.api.call(f"STREAM.UPDATE.{stream}", {**info["config"], "max_bytes": 300_000})
        revision = await store.create("users.large", b"x" * 200_000)
        began = time.monotonic()
        with pytest.raises(errors.Unavailable, match="no room"):
            await store.create("users.more", b"x" * 200_000)
        with pytest.raises(errors.TooLarge):
            await store.create("users.huge", b"x" * 900_000)
        assert time.monotonic() - began < 1
        assert (await store.get("users.large")).revision == revision
        await store.delete("users.large", b"", revision)
        await store.create("users.more", b"x" * 200_000)
        await store.api.call(f"STREAM.DELETE.{stream}")


async def test_a_listing_of_many_entries_is_complete_and_in_order(server: NatsServer, bucket_name: str) -> None:
    async with connect(server.connect_as("administration")) as bus:
        store = JetStreamStore(bus, bucket_name)
        await store.ensure()
        for start in range(0, 9000, 1000):
            await store.batch([Put(f"nodes.n{start + n}", b"x" * 2000, 0) for n in range(1000)])
        async with following(store) as (informer, changes):
            await informer.synced.wait()
            assert len(informer.entries) == 9000
            revisions = [change.last.revision for change in changes]
            assert revisions == sorted(revisions)
        await store.api.call(f"STREAM.DELETE.{stream_of(bucket_name)}")


async def test_a_connection_is_given_up_in_whatever_moment_it_is_cancelled(server: NatsServer) -> None:
    """The library waits in a way that swallows a cancellation when what it waits for is done in the same turn of the loop."""
    for turns in range(150):
        keeping = asyncio.create_task(Connection(server.connect_as("administration")).run())
        for _ in range(turns):
            await asyncio.sleep(0)
        keeping.cancel()
        await asyncio.wait([keeping], timeout=3)
        assert keeping.cancelled(), f"after {turns} turns of the loop"
