"""A relay on loopback in front of a scripted server: raw bytes in, raw bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import uvloop

from libs.common.relay import rebuild
from libs.common.relay.decision import Decision, Relay
from libs.common.relay.head import RequestHead, ResponseHead
from libs.common.relay.names import KUBERNETES_REQUEST
from libs.common.relay.pool import Address, Pool
from libs.common.relay.server import Engine, listen
from libs.common.relay.session import Session
from libs.common.relay.sweeper import Sweeper

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Rig:
    """One relay and its scripted upstream. `received` collects what the script stores there."""

    port: int
    engine: Engine
    pool: Pool
    received: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def talk(self, data: bytes, *, until: bytes | None = None, timeout_s: float = 5.0) -> bytes:
        """Send and read to the end of the connection, or until the bytes `until` have come."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(timeout_s):
                if until is None:
                    return await reader.read()
                return await reader.readuntil(until)
        finally:
            writer.close()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def answer(body: bytes = b"ok", extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), extra, body)


@pytest.fixture
async def make_rig() -> AsyncIterator[Callable[..., Awaitable[Rig]]]:
    cleanup: list[Callable[[], Awaitable[None]]] = []

    async def make(
        script: Script, *, first_byte_s: float | None = None, tick_s: float = 0.05, body_limits=None, tap=None,
        wrap: Callable[[Relay], Relay] = lambda relay: relay,
    ) -> Rig:  # fmt: skip
        rig: Rig

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            rig.connections += 1
            try:
                await script(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                rig.received.append(b"<closed>")
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        upstream_port = server.sockets[0].getsockname()[1]
        sweeper = Sweeper(tick_s)
        pool = Pool(lambda: Address("the test server", "127.0.0.1", upstream_port), sweeper=sweeper)

        def reshape(head: ResponseHead, close: bool) -> bytes:
            return rebuild.response_head(head, close=close)

        def route(head: RequestHead, session: Session) -> Decision:
            built = rebuild.request_head(head, head.target, allowed=KUBERNETES_REQUEST, host=b"up")
            source = pool.fresh if head.upgrade else pool
            relay = Relay(source, built, reshape, upgrade=head.upgrade, first_byte_s=first_byte_s, tap=tap)
            return wrap(relay)

        engine = Engine(route, sweeper=sweeper, **({"limits": body_limits} if body_limits else {}))
        front = await listen(engine, "127.0.0.1", 0, None)
        rig = Rig(front.sockets[0].getsockname()[1], engine, pool)

        async def stop() -> None:
            front.close()
            await engine.stop(grace_s=0.1)
            pool.close()
            server.close()
            await asyncio.sleep(0)

        cleanup.append(stop)
        return rig

    yield make
    for stop in reversed(cleanup):
        await stop()


def pytest_asyncio_loop_factories(config, item):
    """Everything runs on both loops: services use uvloop, a plain process may not."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
