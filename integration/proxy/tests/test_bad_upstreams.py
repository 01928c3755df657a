"""Ten thousand calls to an API server that misbehaves in every way we know: nothing is left behind, and nothing grows.

Front door and agent run in this process over real TLS connections, so its tasks, its files and its memory are those of both.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.auth_proxy import cluster_route
from tests.auth_proxy.bad_upstream import BROKEN, GOOD, ODD, SILENT, TORN, BadServer, says
from tests.auth_proxy.door import Door, open_door
from tests.auth_proxy.recorder import read_reply

CALLS = 10_000
WARM_UP = 2_000
AT_A_TIME = 40
RSS_PER_CALL = 3 * 1024
"""Bytes that the process may grow by for each call after the warm-up. A leaked connection costs more than ten times that; what the
allocator keeps in pieces costs less, and less with each call."""
OBJECTS = 2_000
"""How many more Python objects there may be after all calls: whoever keeps one of each call keeps more."""

QUICK = {f"q{n}": way for n, (name, way) in enumerate({**BROKEN, **ODD, **TORN}.items()) if "hangs" not in name}
SLOW = {
    f"s{n}": way for n, way in enumerate([*SILENT.values(), TORN["hangs in the body"], TORN["hangs between chunks"]])
}


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def settle(condition: Callable[[], bool]) -> None:
    """Connections end a moment after their last byte; this is how long a moment may be."""
    async with asyncio.timeout(15):
        while not condition():  # noqa: ASYNC110 - what is waited for is the kernel's
            await asyncio.sleep(0.05)


class Client:
    """One of those who call: keeps its connection as long as it can, and now and then leaves in the middle."""

    def __init__(self, door: Door, token: str, source: random.Random) -> None:
        self.door = door
        self.token = token
        self.source = source
        self.seen: Counter[str] = Counter()
        self.writer: asyncio.StreamWriter | None = None
        self.reader: asyncio.StreamReader

    async def call(self) -> None:
        if self.writer is None:
            self.reader, self.writer = await self.door.connect()
        # Two in a hundred wait for a clock; the others end as fast as they can.
        name = self.source.choice(list(SLOW if self.source.random() < 0.02 else QUICK))
        method = self.source.choice(("GET", "GET", "POST"))
        body = b"x" * self.source.choice((0, 10, 100_000)) if method == "POST" else b""
        head = f"{method} /k8s/clusters/prod/{name} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\nAuthorization: Bearer {self.token}\r\n\r\n"
        self.writer.write(head.encode() + body)
        leaves = self.source.random() < 0.02
        try:
            async with asyncio.timeout(0.05 if leaves else 20):
                reply = await read_reply(self.reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.seen["torn"] += 1
            self.leave()
        except TimeoutError:
            assert leaves, f"no end of {name}"
            self.seen["left"] += 1
            self.leave()
        else:
            self.seen[str(reply.status)] += 1
            if b"Connection: close" in reply.head or b"Content-Length" not in reply.head:
                self.leave()

    def leave(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()
            self.writer = None


async def call_many(door: Door, token: str, count: int, seed: int) -> Counter[str]:
    left = iter(range(count))
    seen: Counter[str] = Counter()

    async def work(number: int) -> None:
        client = Client(door, token, random.Random(seed * 1000 + number))
        for _ in left:
            await client.call()
        client.leave()
        seen.update(client.seen)

    async with asyncio.TaskGroup() as tasks:
        for number in range(AT_A_TIME):
            tasks.create_task(work(number), name=f"client {number}")
    return seen


@asynccontextmanager
async def bad_server() -> AsyncIterator[BadServer]:
    server = BadServer({**QUICK, **SLOW})
    server.way = says(GOOD)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.mark.timeout(900)
async def test_ten_thousand_calls_to_bad_servers_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_route, "FIRST_BYTE_S", 0.3)
    async with bad_server() as server, open_door(tmp_path, tunnel_wait_s=10.0) as door:
        token = await door.member()
        async with door.agent("prod", server.address, idle=4) as agent:
            await call_many(door, token, WARM_UP, 1)
            await settle(lambda: not agent.serving)
            server.heads.clear()
            tasks, files, before = len(asyncio.all_tasks()), open_files(), resident()
            objects = len(gc.get_objects())
            connections = agent.connected
            seen = await call_many(door, token, CALLS - WARM_UP, 2)
            await settle(lambda: not agent.serving)
            server.heads.clear()
            assert sum(seen.values()) == CALLS - WARM_UP
            assert set(seen) >= {"200", "502", "504", "torn", "left"}, seen
            # Connections of the agent that rest are not leaked: their number is allowed to move.
            spare = 3 * max(0, agent.connected - connections) + 12
            await settle(lambda: open_files() <= files + spare)
            assert len(asyncio.all_tasks()) <= tasks + spare
            assert resident() - before < RSS_PER_CALL * (CALLS - WARM_UP), seen
            assert len(gc.get_objects()) - objects < OBJECTS, seen
            reply = await door.get("/k8s/clusters/prod/well", token)
            assert reply.body == b"ok"
