"""Fixtures: a front door over TLS, and an echoing API server behind an agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop

from libs.common.relay.pool import Address
from tests.auth_proxy.bad_upstream import BadServer
from tests.auth_proxy.door import Door, open_door
from tests.auth_proxy.recorder import Scene, open_scene


def pytest_asyncio_loop_factories(config, item):
    """As the services do: uvloop."""
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Echo:
    """An API server that answers each request with its own head, and holds watches open."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    reply: bytes = b""
    """Instead of the echo, when set."""

    def address(self) -> Address:
        return Address("the API server", "127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if head.startswith(b"POST /slow"):
                    await asyncio.sleep(1.5)
                if b"Upgrade: SPDY" in head and not self.reply:
                    writer.write(
                        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
                    )
                    while data := await reader.read(65536):
                        writer.write(data)
                elif b"watch=true" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
                    await reader.read()
                    return
                elif self.reply:
                    writer.write(self.reply)
                else:
                    body = json.dumps({"head": head.decode("latin-1")}).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
async def door(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    """A test may give settings of its own, by an indirect parameter."""
    async with open_door(tmp_path, **{"tunnel_wait_s": 1.0, **getattr(request, "param", {})}) as opened:
        yield opened


@pytest.fixture
async def scene(door: Door) -> AsyncIterator[Scene]:
    async with open_scene(door) as opened:
        yield opened


@pytest.fixture
async def bad() -> AsyncIterator[BadServer]:
    server = BadServer()
    await server.start()
    yield server
    await server.stop()
