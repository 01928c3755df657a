"""The client library's WebSocket transport with what it lacks: a deadline, proxies from the environment, and few frames.

Agents reach the hub's bus this way, through whatever HTTP proxy their network demands (`HTTPS_PROXY`, `NO_PROXY`). Only `connection`
imports this module, and only for `wss://` addresses, because aiohttp costs memory.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import ParseResult

import aiohttp
from nats.aio.transport import WebSocketTransport


class _Transport(WebSocketTransport):  # type: ignore[misc, unused-ignore]
    """The library sends each command as a frame of its own; here everything that waits goes in one."""

    def __init__(self, connect_timeout_s: float) -> None:
        super().__init__()
        self._own = aiohttp.ClientSession(
            trust_env=True, timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        )
        self._unused, self._client = self._client, self._own  # the one that the library made knows no proxies

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: float) -> None:
        self._ws = await self._client.ws_connect(uri.geturl(), max_msg_size=0, compress=0)
        self._using_tls = False

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: float
    ) -> None:
        if self._ws is not None and not self._ws.closed:
            return  # a wss connection is TLS from its first byte; the library asks again after INFO
        url = uri if isinstance(uri, str) else uri.geturl()
        self._ws = await self._client.ws_connect(url, ssl=ssl_context, max_msg_size=0, compress=0)
        self._using_tls = True

    async def drain(self) -> None:
        waiting = []
        while not self._pending.empty():
            waiting.append(self._pending.get_nowait())
        if waiting and self._ws is not None:
            await self._ws.send_bytes(b"".join(waiting))

    async def release(self) -> None:
        """Close everything, whatever the library has closed already."""
        await self._unused.close()
        await self._own.close()


def open_transport(connect_timeout_s: float) -> Any:
    """A transport for one connection; the client closes it."""
    return _Transport(connect_timeout_s)
