"""A few answers over plain HTTP, for probes and scrapers: the smallest server that is one. Used by `runtime.health` and the agent.

One GET or HEAD per connection, no body read, no task per connection. A library would cost 13 MB in each process for it. It is
no public server: it binds where the settings say, which is loopback or the inside of a pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from libs.common import errors

HEAD_LIMIT_BYTES = 16 << 10
PATIENCE_S = 10.0
MAX_CONNECTIONS = 64
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Answer = Callable[[], Reply]
"""Makes the answer for one path, at once: it must not wait."""


def verdict(missing: list[str]) -> Reply:
    """200 "ok" when nothing is missing, else 503 with one line for each thing that is."""
    if not missing:
        return Reply(200, b"ok\n")
    return Reply(503, "".join(f"waiting for {name}\n" for name in missing).encode())


@asynccontextmanager
async def serve(listen: str, answers: Mapping[str, Answer]) -> AsyncIterator[tuple[str, int]]:
    """Answer while the context is open; gives the address that was bound. `:8686` = all interfaces. Raises Unavailable."""
    open_connections: set[_Connection] = set()
    host, _, port = listen.rpartition(":")
    try:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(answers, open_connections), host.strip("[]") or None, int(port)
        )
    except (OSError, ValueError, OverflowError) as exc:
        raise errors.Unavailable(f'cannot answer probes on "{listen}": {exc}; give a free HOST:PORT') from exc
    try:
        bound_host, bound_port = server.sockets[0].getsockname()[:2]
        yield f"[{bound_host}]" if ":" in bound_host else str(bound_host), int(bound_port)
    finally:
        server.close()
        for connection in tuple(open_connections):
            connection.abort()


class _Connection(asyncio.Protocol):
    def __init__(self, answers: Mapping[str, Answer], among: set[_Connection]) -> None:
        self._answers = answers
        self._among = among
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self._among) >= MAX_CONNECTIONS:
            self._transport.abort()
            return
        self._among.add(self)
        self._deadline = asyncio.get_running_loop().call_later(PATIENCE_S, self._transport.abort)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._among.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._head += data
        if len(self._head) > HEAD_LIMIT_BYTES:
            self._transport.abort()
        elif b"\r\n\r\n" in self._head:
            method, reply = self._reply(self._head)
            head = (
                f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}\r\nContent-Type: {reply.content_type}\r\n"
                f"Content-Length: {len(reply.body)}\r\nConnection: close\r\n\r\n"
            )
            self._transport.write(head.encode("ascii") + (b"" if method == "HEAD" else reply.body))
            self._transport.close()

    def _reply(self, head: bytes) -> tuple[str, Reply]:
        words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "", Reply(400, b"this is an HTTP/1.1 server\n")
        method, path = words[0], words[1].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return method, Reply(405, b"only GET and HEAD\n")
        answer = self._answers.get(path)
        if answer is None:
            return method, Reply(404, f"there are {', '.join(sorted(self._answers))}\n".encode())
        return method, answer()
