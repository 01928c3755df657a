"""What uvloop and OpenSSL cost by themselves: each client connection is tied to one of the API server's, and bytes pass unread.

No proxy in Python can be cheaper than this. It adds the headers that make the API server answer, to each read from a client, and
nothing else; so it is a floor for a benchmark, and no proxy.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from bench.proxy import scene
from bench.proxy.roles import talk


class End(asyncio.Protocol):
    """One end of a pair; `opens` makes the other, for a client's end."""

    def __init__(self, insert: bytes, opens: Callable[[End], Any] | None = None) -> None:
        self._insert = insert
        self._opens = opens
        self._early = b""
        self.other: End | None = None
        self.transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self._opens is not None:
            self._task = asyncio.get_running_loop().create_task(self._open(self._opens), name="open")

    async def _open(self, opens: Callable[[End], Any]) -> None:
        _, self.other = await opens(self)
        if self._early:
            self.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        elif self._insert:
            self.other.transport.write(data[:-2] + self._insert)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.other is not None:
            self.other.transport.abort()


async def serve(config: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(config["certificate"], config["key"])
    api = ssl.create_default_context(cafile=config["backend_ca"])
    identity = "".join(f"{name}: {v}\r\n" for name, *values in config["identity"] for v in values)
    insert = f"Authorization: {scene.API_CREDENTIAL}\r\n{identity}\r\n".encode()

    def opens(client: End) -> Any:
        def make() -> End:
            end = End(b"")
            end.other = client
            return end

        return loop.create_connection(make, "127.0.0.1", config["backend"], ssl=api, server_hostname="localhost")

    server = await loop.create_server(lambda: End(insert, opens), "127.0.0.1", 0, ssl=tls, backlog=4096)
    await talk.serve(port=server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    talk.run(serve)
