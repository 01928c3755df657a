"""An API server that answers access reviews by a list of rights, and every other request with its own head. Plain HTTP on loopback.

Not imitated: RBAC (a right is the exact question), the impersonation filter (whoever may impersonate is not looked at).
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from libs.common.relay.pool import Address

REVIEW = b"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews "
Right = tuple[str, str, str]
"""(who, resource or resource/subresource, [namespace/]name)."""


@dataclass
class Judge:
    """`calls` and `reviews` are the heads that came; `answer` replaces the answer to every review when set."""

    name: str = "prod"
    rights: set[Right] = field(default_factory=set)
    calls: list[bytes] = field(default_factory=list)
    reviews: list[bytes] = field(default_factory=list)
    asked: list[Right] = field(default_factory=list)
    answer: bytes = b""
    chunked: bool = False
    port: int = 0

    def address(self) -> Address:
        return Address("the API server", "127.0.0.1", self.port)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Judge]:
        async with listening(self._serve, self.port) as self.port:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(next((v for k, v in fields(head) if k == "content-length"), "0"))
            body = await reader.readexactly(size)
            if head.startswith(REVIEW):
                self.reviews.append(head)
                writer.write(self.answer or self._judge(head, body))
            elif b"Upgrade: SPDY" in head:
                self.calls.append(head)
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
                while data := await reader.read(65536):
                    writer.write(data)
                return
            elif b"watch=true" in head:
                self.calls.append(head)
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n")
                await reader.read()
                return
            else:
                self.calls.append(head)
                text = json.dumps({"cluster": self.name, "head": head.decode(), "body": body.decode()}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)

    def _judge(self, head: bytes, body: bytes) -> bytes:
        asked = json.loads(body)["spec"]["resourceAttributes"]
        assert asked["verb"] == "impersonate"
        who = next(v for k, v in fields(head) if k == "impersonate-user")
        resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
        right = (who, resource, "/".join(filter(None, (asked.get("namespace"), asked["name"]))))
        self.asked.append(right)
        status = {"allowed": right in self.rights, "reason": "RBAC says so"}
        text = json.dumps({"kind": "SelfSubjectAccessReview", "status": status}).encode()
        if self.chunked:
            half = len(text) // 2
            parts = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (text[:half], text[half:]))
            return b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n"
        return b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(text) + text


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """A server on loopback, as its port; whatever is connected at the end is cut."""
    open_now: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now[task] = writer
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            del open_now[task]
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_now.values():
            writer.transport.abort()
        await asyncio.gather(*open_now, return_exceptions=True)


def replying(
    reply: Callable[[bytes], bytes],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Serves requests without a body by a function of their heads."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            writer.write(reply(head))

    return serve


def fields(head: bytes) -> list[tuple[str, str]]:
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:-2]]
    return [(name.lower(), value) for name, _, value in lines]
