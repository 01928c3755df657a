"""Clients that hide nothing: HTTP/1.1 on bare connections without a retry, and a watcher that goes on as client-go's reflector does.

Used where a request that is lost must be seen: every failure is kept with its words.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Target:
    """One hub address, with a token. `prefix` goes before every path."""

    host: str
    port: int
    tls: ssl.SSLContext
    token: str
    prefix: str = ""

    def head(self, method: str, path: str, body: bytes = b"", *, close: bool = False) -> bytes:
        lines = [f"{method} {self.prefix}{path} HTTP/1.1", "Host: hub", f"Authorization: Bearer {self.token}"]
        lines += ["Connection: close"] if close else []
        if method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Client:
    """One connection at a time, kept as long as the server keeps it."""

    def __init__(self, target: Target, *, keep: bool = True) -> None:
        self._target = target
        self._keep = keep
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.dialled = 0

    async def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Raises OSError or IncompleteReadError when the answer does not come whole."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(
                self._target.host, self._target.port, ssl=self._target.tls, server_hostname="localhost"
            )
            self.dialled += 1
        assert self._reader is not None
        self._writer.write(self._target.head(method, path, body, close=not self._keep))
        status, headers = await read_head(self._reader)
        content = b"".join([part async for part in read_body(self._reader, headers)])
        if headers.get("connection", "") == "close":
            self.close()
        return status, content

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = (line.partition(":") for line in head[1:] if line)
    return int(head[0].split(" ")[1]), {name.lower(): value.strip().lower() for name, _, value in fields}


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    """The body's pieces; ends at the body's own end alone. Raises IncompleteReadError when it is torn."""
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)


@dataclass
class Load:
    """Requests without pause until `stop`; whatever is not a 2xx is a failure."""

    target: Target
    paths: tuple[tuple[str, str, bytes], ...]
    pause_s: float = 0.02
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _over: bool = False

    def start(self, *, kept: int, fresh: int) -> None:
        for number in range(kept + fresh):
            client = Client(self.target, keep=number < kept)
            self._tasks.append(asyncio.create_task(self._run(client, number), name=f"load {number}"))

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def _run(self, client: Client, number: int) -> None:
        turn = number
        while not self._over:
            method, path, body = self.paths[turn % len(self.paths)]
            turn += 1
            began = time.monotonic()
            try:
                async with asyncio.timeout(60):
                    status, content = await client.call(method, path, body)
            except (OSError, EOFError, TimeoutError) as exc:
                self.failures.append(f"{time.monotonic():.2f} {method} {path}: {type(exc).__name__} {exc}")
                client.close()
            else:
                self.done[method] += 1
                if not 200 <= status < 300:
                    self.failures.append(f"{time.monotonic():.2f} {method} {path}: {status} {content[:300]!r}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(self.pause_s)
        client.close()


@dataclass
class Watcher:
    """A list, then watches from the last resourceVersion, as client-go's reflector (tools/cache/reflector.go): after the end of a watch,
    clean or torn, it watches again from where it was; it lists again when a watch can't be opened, or was shorter than a second and empty.
    """

    target: Target
    path: str
    lists: int = 0
    clean_ends: int = 0
    torn_ends: int = 0
    refused: list[str] = field(default_factory=list)
    events: int = 0
    seen: set[str] = field(default_factory=set)
    watching: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        while True:
            try:
                version = await self._list()
                while version:
                    version = await self._watch(version)
            except (OSError, EOFError) as exc:
                self.refused.append(f"{type(exc).__name__} {exc}")
            await asyncio.sleep(0.2)

    async def _list(self) -> str:
        self.lists += 1
        client = Client(self.target)
        try:
            status, content = await client.call("GET", self.path)
        finally:
            client.close()
        if status != 200:
            self.refused.append(f"list: {status} {content[:200]!r}")
            return ""
        return str(json.loads(content)["metadata"]["resourceVersion"])

    async def _watch(self, version: str) -> str:
        """The version that was reached; empty when a new list is needed."""
        reader, writer = await asyncio.open_connection(
            self.target.host, self.target.port, ssl=self.target.tls, server_hostname="localhost"
        )
        began, before = time.monotonic(), self.events
        try:
            writer.write(
                self.target.head("GET", f"{self.path}?watch=true&allowWatchBookmarks=true&resourceVersion={version}")
            )
            status, headers = await read_head(reader)
            if status != 200:
                self.refused.append(f"watch: {status}")
                return ""
            self.watching.set()
            rest = b""
            try:
                async for piece in read_body(reader, headers):
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        document = json.loads(line)
                        self.events += 1
                        version = document["object"]["metadata"]["resourceVersion"]
                        self.seen.add(document["object"]["metadata"].get("name", ""))
                self.clean_ends += 1
            except (OSError, EOFError):
                self.torn_ends += 1
        finally:
            self.watching.clear()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return "" if time.monotonic() - began < 1.0 and self.events == before else version
