"""Two ways to one API server: through the hub, and straight to its own port as the same person. What comes back must be the same.

Bodies are compared as they came over the wire, compressed or not; of the heads everything but what the hub says in its own name.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

PREFIX = "/k8s/clusters/prod"
PROTOBUF = "application/vnd.kubernetes.protobuf"
EACH_ITS_OWN = frozenset(
    {"audit-id", "date", "expires", "content-security-policy", "x-accel-buffering", "x-content-type-options"}
)
"""Names that differ between two calls, or that the hub writes (a cluster's page is sandboxed)."""
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. `fields` are all header lines, names in lower case, in the order of the names; `body` is as it was sent."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header, or ""."""
        return ", ".join(value for lower, value in self.fields if lower == name.lower())

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def comparable(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self.fields if name not in EACH_ITS_OWN]


class Wire:
    """`hub` and `direct` make the same request; `both` makes it both ways."""

    def __init__(self, session: aiohttp.ClientSession, hub: Way, direct: Way) -> None:
        self._session = session
        self._hub = hub
        self._direct = direct

    async def hub(self, method: str, path: str, *, body: bytes | None = None, **headers: str) -> Reply:
        return await self._ask(self._hub, method, path, body, headers)

    async def direct(self, method: str, path: str, *, body: bytes | None = None, **headers: str) -> Reply:
        return await self._ask(self._direct, method, path, body, headers)

    async def both(self, method: str, path: str, *, body: bytes | None = None, **headers: str) -> tuple[Reply, Reply]:
        """(through the hub, straight)."""
        straight = await self.direct(method, path, body=body, **headers)
        return await self.hub(method, path, body=body, **headers), straight

    async def same(self, path: str, **headers: str) -> Reply:
        """A GET that must be answered alike: status, header lines, bytes. Returns the answer."""
        through, straight = await self.both("GET", path, body=None, **headers)
        assert through.status == straight.status, through.body[:500]
        assert through.comparable == straight.comparable
        assert through.body == straight.body
        return through

    @asynccontextmanager
    async def stream(self, path: str, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET through the hub whose answer is read as it comes."""
        async with self._open(self._hub, "GET", path, None, headers) as response:
            yield response

    def _open(self, way: Way, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        # An aiohttp client that is asked for nothing asks for compression: only what the test says shall count.
        sent.setdefault("Accept-Encoding", "identity")
        return self._session.request(
            method, URL(way.base + path, encoded=True), data=body, ssl=way.tls, headers=[*way.headers, *sent.items()]
        )

    async def _ask(self, way: Way, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
        async with self._open(way, method, path, body, headers) as response:
            content = await response.read()
            fields = sorted((name.lower(), value) for name, value in response.headers.items())
            return Reply(response.status, fields, content)


@dataclass(frozen=True, slots=True)
class Way:
    base: str
    tls: ssl.SSLContext
    headers: tuple[tuple[str, str], ...]


@asynccontextmanager
async def open_wire(hub: Way, direct: Way) -> AsyncIterator[Wire]:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(
        auto_decompress=False, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        yield Wire(session, hub, direct)
        await asyncio.sleep(0)


def identity_headers(lines: bytes) -> tuple[tuple[str, str], ...]:
    """The hub's ready lines as headers, for the straight way."""
    pairs = (line.partition(": ") for line in lines.decode("ascii").splitlines())
    return tuple((name, value) for name, _, value in pairs)
