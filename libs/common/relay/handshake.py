"""The agent's half of making a reverse connection: ask for a challenge, sign it, become the side that serves.

`dial` calls `shake_hands` on a connection that `outbound` made. The hub's half is `services.auth_proxy.agent_route`.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from libs.common import errors
from libs.common.relay import tunnel
from libs.common.relay.head import END, MAX_HEAD, ResponseHead, parse_response
from libs.common.relay.outbound import Hub

_MAX_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class TunnelIdentity:
    """Who the agent is. `sign` makes the 64-byte Ed25519 signature with the NKEY whose public half is `public_key`."""

    cluster_uid: str
    public_key: str
    sign: Callable[[bytes], bytes]
    instance: str
    """Random for each process: by it the hub tells two agents with one identity apart."""


class Superseded(errors.Conflict):
    """Another agent with the same identity connected later and serves the cluster now."""


class Handshake(asyncio.Protocol):
    """One question at a time on a fresh connection. Bytes after a final head belong to whoever comes next."""

    def __init__(self) -> None:
        self._buffer = b""
        self._arrived = asyncio.Event()
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._arrived.set()
        if len(self._buffer) > MAX_HEAD + _MAX_BODY:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost = True
        self._arrived.set()

    async def ask(self, request: bytes) -> tuple[ResponseHead, bytes]:
        """Send a request, return the answer's head and body. Raises Unavailable when none comes."""
        self.transport.write(request)
        while (end := self._buffer.find(END)) < 0:
            await self._more()
        try:
            head = parse_response(self._buffer[: end + 4])
        except errors.BadRequest as exc:
            raise errors.Unavailable(
                "what answers at the hub's address does not speak HTTP/1.1: check the URL"
            ) from exc
        self._buffer = self._buffer[end + 4 :]
        if head.status == 101:
            return head, b""
        size = head.content_length
        if head.chunked or size is None or size > _MAX_BODY:
            raise errors.Unavailable(
                f"what answers at the hub's address is no hub (status {head.status}): check the URL"
            )
        while len(self._buffer) < size:
            await self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return head, body

    def hand_over(self) -> bytes:
        """What was read beyond the handshake; this protocol is done."""
        rest, self._buffer = self._buffer, b""
        return rest

    async def _more(self) -> None:
        if self._lost:
            raise errors.Unavailable("the hub closed the connection in the middle of the handshake")
        self._arrived.clear()
        await self._arrived.wait()


async def shake_hands(connection: Handshake, hub: Hub, identity: TunnelIdentity) -> None:
    """Prove who we are; returns when the hub may send requests. Raises Superseded, Denied or Unavailable."""
    common = f"Host: {hub.authority}\r\nUser-Agent: herdsman-agent\r\n".encode()
    head, body = await connection.ask(
        b"GET " + hub.prefix + tunnel.CHALLENGE_PATH + b" HTTP/1.1\r\n" + common + b"\r\n"
    )
    if head.status != 200:
        raise _refused(head.status, body)
    try:
        nonce = str(json.loads(body)["nonce"])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise errors.Unavailable("what answers at the hub's address is no hub: check the URL") from exc
    signature = base64.urlsafe_b64encode(identity.sign(tunnel.signed_bytes(nonce, identity.cluster_uid))).rstrip(b"=")
    lines = {
        tunnel.CLUSTER: identity.cluster_uid,
        tunnel.PUBLIC_KEY: identity.public_key,
        tunnel.INSTANCE: identity.instance,
        tunnel.SIGNATURE: signature.decode("ascii"),
    }
    head, body = await connection.ask(
        b"GET " + hub.prefix + tunnel.CONNECT_PATH + b" HTTP/1.1\r\n" + common
        + f"Connection: Upgrade\r\nUpgrade: {tunnel.PROTOCOL}\r\n".encode()
        + "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("ascii") + b"\r\n"
    )  # fmt: skip
    if head.status != 101 or head.upgrade != tunnel.PROTOCOL.encode():
        raise _refused(head.status, body)


def _refused(code: int, body: bytes) -> errors.HerdsmanError:
    try:
        message = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"status {code}"
    if code == 409:
        return Superseded(f"the hub refuses this agent: {message}")
    if code in (401, 403, 404):
        return errors.Denied(f"the hub refuses this agent: {message}")
    return errors.Unavailable(f"the hub has no place for this connection now: {message}")
