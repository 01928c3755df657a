"""Many watches at once, held open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from bench.proxy import scene
from bench.proxy.contestants import Contestant
from bench.proxy.pace import client_tls
from bench.proxy.stage import StageError

_AT_ONCE = 48


class Watch(asyncio.Protocol):
    """One watch. `closed_at` is 0 while it is open; `pause` stops reading for good."""

    def __init__(self, begun: asyncio.Future[None]) -> None:
        self.closed_at = 0.0
        self.received = 0
        self.begun = begun
        self._head = b""
        self.transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        if self.begun.done():
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            if self._head.startswith(b"HTTP/1.1 200 "):
                self.begun.set_result(None)
            else:
                self.begun.set_exception(StageError(f"a watch was refused: {self._head[:300]!r}"))

    def connection_lost(self, exc: BaseException | None) -> None:
        self.closed_at = time.monotonic()
        if not self.begun.done():
            self.begun.set_exception(StageError(f"a watch was closed before it began: {exc}"))


async def open_stream(contestant: Contestant, path: str) -> Watch:
    """Send one request, wait for the head of its answer."""
    loop = asyncio.get_running_loop()
    begun = loop.create_future()
    _, watch = await loop.create_connection(
        lambda: Watch(begun), "127.0.0.1", contestant.port, ssl=client_tls(), ssl_handshake_timeout=60
    )
    watch.transport.write(contestant.request(path))
    try:
        async with asyncio.timeout(60):
            await begun
    except TimeoutError as exc:
        raise StageError(f"{contestant.name}: a stream did not begin within a minute") from exc
    return watch


async def open_watches(contestants: Sequence[Contestant], count: int, within_s: float = 600.0) -> list[Watch]:
    """So many watches, shared out among the contestants, all begun; fewer where the machine does not make them in time."""
    gate = asyncio.Semaphore(_AT_ONCE)
    deadline = time.monotonic() + within_s

    async def one(number: int) -> Watch | None:
        async with gate:
            if time.monotonic() > deadline:
                return None
            return await open_stream(contestants[number % len(contestants)], scene.WATCH_PATH)

    opened = await asyncio.gather(*(one(number) for number in range(count)))
    return [watch for watch in opened if watch is not None]


def check_open(watches: Sequence[Watch], who: str) -> None:
    """Raises StageError when one of them is closed."""
    if any(watch.closed_at for watch in watches):
        raise StageError(f"a stream of {who} was closed")


async def close_all(watches: Sequence[Watch]) -> None:
    for watch in watches:
        watch.transport.abort()
    await asyncio.sleep(0.5)
