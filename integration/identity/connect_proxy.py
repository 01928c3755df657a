"""A forward proxy for tests: CONNECT to the names that it knows, wherever those really are; everything else is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class ConnectProxy:
    """`asked` are the targets of all that came, in order."""

    known: Mapping[str, tuple[str, int]]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode("ascii")
            self.asked.append(target)
            if not head.startswith(b"CONNECT ") or target not in self.known:
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            far_reader, far_writer = await asyncio.open_connection(*self.known[target])
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            async with asyncio.TaskGroup() as both:
                both.create_task(_pass_on(reader, far_writer), name="to the far side")
                both.create_task(_pass_on(far_reader, writer), name="from the far side")
        finally:
            writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return  # one side is gone, so the other one is no use
    finally:
        writer.close()


@asynccontextmanager
async def proxying(known: Mapping[str, tuple[str, int]]) -> AsyncIterator[ConnectProxy]:
    """`known`: `host:port` as it is asked for → the address to go to."""
    proxy = ConnectProxy(known)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
