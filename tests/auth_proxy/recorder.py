"""The far end of the advisories' tests: an API server that writes down every byte, and a client that says exactly what it is told.

`Scene` is one person with a role in cluster `prod`, whose agent leads to a `Recorder`. Not imitated: anything that an API server
does beyond answering each head with `reply`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from libs.common.relay.pool import Address
from tests.auth_proxy.door import Door, Reply

PATH = "/k8s/clusters/prod/api/v1/secrets"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
UPGRADES: dict[str, list[str]] = {
    "websocket": [
        "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: v5.channel.k8s.io",
    ],
    "spdy": ["Connection: Upgrade", "Upgrade: SPDY/3.1", "X-Stream-Protocol-Version: v4.channel.k8s.io"],
}  # fmt: skip
FORMS: dict[str, list[str]] = {"plain": [], **UPGRADES}
"""Each attack is tried as a plain request and as both ways to ask for a switch of protocols."""
REFUSED = (400, 401, 403)


@dataclass
class Recorder:
    """`connections` holds all bytes of each connection, in the order in which they were opened."""

    port: int = 0
    connections: list[bytearray] = field(default_factory=list)
    reply: bytes = OK
    hang_up: bool = False
    """Close after the first answer."""

    @property
    def heads(self) -> list[bytes]:
        """The heads that arrived, given that no test here sends a body with an empty line in it."""
        return [piece + b"\r\n\r\n" for seen in self.connections for piece in bytes(seen).split(b"\r\n\r\n")[:-1]]

    def clear(self) -> None:
        """Forget what came; connections that are open go on being written down."""
        for seen in self.connections:
            seen.clear()

    def address(self) -> Address:
        return Address("the API server", "127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = bytearray()
        self.connections.append(seen)
        part = b""
        try:
            while data := await reader.read(65536):
                seen += data
                *whole, part = (part + data).split(b"\r\n\r\n")
                for _ in whole:
                    writer.write(self.reply)
                if whole and self.hang_up:
                    return
        except ConnectionError:
            return
        finally:
            writer.close()


def identity_lines(head: bytes) -> list[bytes]:
    """All that says who calls, or could be read so, whatever its case and its dashes."""
    names = rb"(?im)^(?:impersonate|x[-_]remote|herdsman|x[-_]forwarded|authorization|cookie|proxy)[^:]*:.*$"
    return [line.rstrip(b"\r") for line in re.findall(names, head)]


@dataclass
class Scene:
    door: Door
    upstream: Recorder
    token: str

    @property
    def identity(self) -> list[bytes]:
        """What the cluster must see, line by line: the agent's credential, then ada, and nothing else."""
        uid = self.door.uids["user/ada"]
        lines = [
            "Authorization: Bearer sa-token", "Impersonate-User: herdsman:ada", f"Impersonate-Uid: {uid}",
            "Impersonate-Group: herdsman:cluster:prod:cluster-owner", f"Impersonate-Extra-herdsman-principal: local:user:{uid}",
            f"Impersonate-Extra-herdsman-token: {self.token.split('_')[1]}",
        ]  # fmt: skip
        return [line.encode() for line in lines]

    async def say(
        self, lines: Iterable[str], *, target: str = PATH, method: str = "GET", token: str | None = None, after: bytes = b""
    ) -> Reply:  # fmt: skip
        """Send one request with these lines as they are, latin-1 byte for byte; return the first answer."""
        credential = self.token if token is None else token
        head = [f"{method} {target} HTTP/1.1", "Host: hub", *lines]
        if credential:
            head.append(f"Authorization: Bearer {credential}")
        return await self.raw("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + after)

    async def raw(self, data: bytes) -> Reply:
        reader, writer = await self.door.connect()
        try:
            writer.write(data)
            async with asyncio.timeout(10):
                return await read_reply(reader)
        finally:
            writer.close()

    async def refuses(self, what: str, lines: Sequence[str], **request: str) -> list[str]:
        """Faults found when the attack is made in every form; the attack must be refused and nothing may reach the cluster."""
        faults = []
        for form, extra in FORMS.items():
            self.upstream.clear()
            reply = await self.say([*lines, *extra], **request)
            if reply.status not in REFUSED or b'"kind": "Status"' not in reply.body:
                faults.append(f"{what}, {form}: answered {reply.status} {reply.body!r}")
            if self.upstream.heads:
                faults.append(f"{what}, {form}: reached the cluster as {self.upstream.heads}")
        return faults

    async def passes_clean(self, what: str, lines: Sequence[str], **request: str) -> list[str]:
        """Faults found when a harmless request is made in every form: it must arrive with exactly the identity."""
        faults = []
        for form, extra in FORMS.items():
            self.upstream.clear()
            reply = await self.say([*lines, *extra], **request)
            arrived = [identity_lines(head) for head in self.upstream.heads]
            if reply.status != 200 or arrived != [self.identity]:
                faults.append(f"{what}, {form}: answered {reply.status}, arrived as {arrived}")
        return faults


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: (\d+)\r$", head)
    return Reply(head + (await reader.readexactly(int(length.group(1))) if length else b""))


@asynccontextmanager
async def open_scene(door: Door) -> AsyncIterator[Scene]:
    upstream = Recorder()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    upstream.port = server.sockets[0].getsockname()[1]
    token = await door.member()
    async with door.agent("prod", upstream.address):
        yield Scene(door, upstream, token)
    server.close()
