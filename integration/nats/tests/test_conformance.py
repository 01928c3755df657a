"""The suites of `tests/store` and `tests/bus` on the real thing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from integration.harness.nats import NatsServer
from integration.nats.tcp_proxy import TcpProxy, proxy_to
from libs.common.bus.nats import NatsBus, connect
from libs.common.contracts.permissions import stream_of
from libs.common.store.jetstream import JetStreamStore
from tests.bus.conformance import BusConformance
from tests.store.conformance import Bucket, StoreConformance


class TestJetStreamStore(StoreConformance):
    @pytest.fixture
    async def bucket(self, admin: NatsBus, server: NatsServer, bucket_name: str) -> AsyncGenerator[Bucket, None]:
        stream = stream_of(bucket_name)
        async with (
            proxy_to(server.port) as proxy,
            connect(server.connect_as("administration", server=proxy.url)) as bus,
        ):
            store, through_admin = JetStreamStore(bus, bucket_name), JetStreamStore(admin, bucket_name)
            await store.ensure()

            async def interrupt() -> None:
                proxy.cut()

            async def compact(key: str) -> None:
                await through_admin.api.call(f"STREAM.PURGE.{stream}", {"filter": f"$KV.{bucket_name}.{key}"})

            async def recreate() -> None:
                await through_admin.api.call(f"STREAM.DELETE.{stream}")
                await through_admin.ensure()

            yield Bucket(store, interrupt, compact, recreate)
            await through_admin.api.call(f"STREAM.DELETE.{stream}")


class TestNatsBus(BusConformance):
    @pytest.fixture
    async def proxy(self, server: NatsServer) -> AsyncGenerator[TcpProxy, None]:
        async with proxy_to(server.port) as proxy:
            yield proxy

    @pytest.fixture
    async def bus(self, server: NatsServer, proxy: TcpProxy) -> AsyncGenerator[NatsBus, None]:
        async with connect(server.connect_as("administration", server=proxy.url)) as bus:
            yield bus

    @pytest.fixture
    def break_off(self, proxy: TcpProxy) -> Callable[[], Awaitable[None]]:
        async def refuse() -> None:
            proxy.refuse()

        return refuse
