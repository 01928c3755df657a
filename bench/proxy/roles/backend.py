"""The API server's stand-in: answers each head with ready bytes, as fast as Python can, so that the proxy is what is measured."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

from bench.proxy import scene
from bench.proxy.roles import talk

_BODY = scene.render_list()
_LIST = scene.render_answer(("Content-Length", str(len(_BODY)))) + _BODY
_WATCH = scene.render_answer(("Transfer-Encoding", "chunked"))
_BULK = scene.render_answer(("Content-Length", str(scene.BULK_BYTES)))
_PIECE = b"y" * (256 * 1024)
_REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class ApiServer(asyncio.Protocol):
    """One connection. Requests have no bodies here."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._paused = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=1024 * 1024)

    def data_received(self, data: bytes) -> None:
        if self._head:
            data = self._head + data
        if not data.endswith(b"\r\n\r\n"):
            self._head = data
            return
        self._head = b""
        if scene.USER_LINE not in data or scene.CREDENTIAL_LINE not in data:
            self._transport.write(_REFUSED)
        elif data.startswith(b"GET /api/v1/"):
            self._transport.write(_WATCH if b"watch=true" in data else _LIST)
        elif data.startswith(b"GET /apis/echo"):
            self._transport.write(scene.render_answer(("Content-Length", str(len(data)))) + data)
        else:
            self._transport.write(_BULK)
            self._left = scene.BULK_BYTES
            self._pump()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def _pump(self) -> None:
        while self._left and not self._paused and not self._transport.is_closing():
            self._left -= len(_PIECE)
            self._transport.write(_PIECE)


async def serve(config: dict[str, Any]) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(config["folder"]) / "tls.crt", Path(config["folder"]) / "tls.key")
    server = await asyncio.get_running_loop().create_server(ApiServer, "127.0.0.1", 0, ssl=tls, backlog=4096)
    await talk.serve(port=server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    talk.run(serve)
