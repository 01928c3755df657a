"""Requests at a fixed rate, each timed: what a caller waits, not what a flooded proxy can take.

Constant rate: a request that is due while the last one on its connection is still under way waits, and its wait counts (else a stall
would hide all requests that it kept from being sent). A request that is sent late because this process woke up late counts from
its sending: that is the generator's fault.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import deque
from functools import cache
from typing import Any

from bench.proxy import scene
from bench.proxy.contestants import Contestant
from bench.proxy.stage import StageError

_PATIENCE_S = 20
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


@cache
def client_tls() -> ssl.SSLContext:
    """Certificates are not looked at: that would be the generator's time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Caller(asyncio.Protocol):
    """One connection that sends the same request again and again. `took_ms` has an entry for each answer that was right."""

    def __init__(self, request: bytes, size: int) -> None:
        self.took_ms: list[float] = []
        self.wrong = ""
        self._request = request
        self._size = size
        self._due: deque[float] = deque()
        self._began = 0.0
        self._left = 0
        self._head = b""
        self.transport: Any

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def call(self) -> None:
        """A request is due now."""
        now = time.monotonic()
        self._due.append(now)
        if len(self._due) == 1:
            self._send(now)

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._head += data
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            length = _LENGTH.search(head + b"\r\n")
            if not head.startswith(b"HTTP/1.1 200 ") or length is None or int(length[1]) != self._size:
                self.wrong = head.decode("latin-1")
                self.transport.abort()
                return
            self._head = b""
            self._left = self._size - len(body)
        else:
            self._left -= len(data)
        if not self._left:
            now = time.monotonic()
            self.took_ms.append((now - self._began) * 1000)
            self._due.popleft()
            if self._due:
                self._send(self._due[0])

    def connection_lost(self, exc: BaseException | None) -> None:
        self.wrong = self.wrong or f"the connection was lost: {exc}"

    def _send(self, began: float) -> None:
        self._began = began
        self.transport.write(self._request)


async def pace(contestant: Contestant, rate: float, seconds: float, connections: int) -> list[float]:
    """The times of all calls in ms. Raises StageError when an answer was not the right one."""
    loop = asyncio.get_running_loop()
    request = contestant.request(scene.LIST_PATH)
    callers: list[Caller] = []
    for _ in range(connections):
        _, caller = await loop.create_connection(
            lambda: Caller(request, scene.BODY_BYTES), "127.0.0.1", contestant.port, ssl=client_tls()
        )
        callers.append(caller)
    for caller in callers:
        caller.call()  # the proxy's own connection is made by the first
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.3)
    for caller in callers:
        caller.took_ms.clear()
    start = loop.time() + 0.05
    for number in range(int(rate * seconds)):
        loop.call_at(start + number / rate, callers[number % connections].call)
    await asyncio.sleep(0.05 + seconds)
    for _ in range(_PATIENCE_S * 20):
        if sum(len(caller.took_ms) for caller in callers) == int(rate * seconds) or any(
            caller.wrong for caller in callers
        ):
            break
        await asyncio.sleep(0.05)
    wrong = next((caller.wrong for caller in callers if caller.wrong), "")
    for caller in callers:
        caller.transport.abort()
    took = [ms for caller in callers for ms in caller.took_ms]
    if wrong or len(took) < int(rate * seconds):
        raise StageError(f"{contestant.name} at {rate:g} requests/s: {wrong or 'it does not keep up'}")
    return took
