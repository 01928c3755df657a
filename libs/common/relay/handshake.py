"""The agent's half of making a reverse connection: ask for the switch, prove who we are, become the side that serves.

`reach` calls `ask_for_switch` and `prove` on a connection that `outbound` made. The hub's half is `services.auth_proxy.doorstep`.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from libs.common import errors
from libs.common.relay import tunnel, websocket
from libs.common.relay.head import END, MAX_HEAD, ResponseHead, parse_response
from libs.common.relay.outbound import Hub

PLAIN, WEBSOCKET = "plain", "websocket"
_MAX_BODY = 64 * 1024
_NO_HUB = "what answers at the hub's address is no hub: check the URL"


def _nothing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class TunnelIdentity:
    """Who the agent is. `sign` makes the 64-byte Ed25519 signature with the NKEY whose public half is `public_key`."""

    cluster_uid: str
    public_key: str
    sign: Callable[[bytes], bytes]
    instance: str
    """Random for each process: by it the hub tells several agents with one identity apart."""
    kube_system: Callable[[], str] = _nothing
    """Uid of the namespace kube-system, "" while it is not known: agents that say the same serve the same cluster."""
    trusted_ca: Callable[[], str] = _nothing
    """Digest of the hub's certificate authorities that this agent trusts."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the hub said. `worker` is its process, `waiting` how many requests wait for a connection, `ca` its bundle's digest."""

    worker: str
    waiting: int
    ca: str


class Superseded(errors.Conflict):
    """Another agent with the same identity connected later and serves the cluster now."""


class NotPassed(errors.Unavailable):
    """Something on the way, or the hub behind it, did not see the request to switch protocols: another carrier may pass."""


class Silent(NotPassed):
    """Nobody said no: a balancer that swallows the switch looks so, and so do a network that is cut and a hub that was killed."""


class Handshake(asyncio.Protocol):
    """Reads what is asked for on a fresh connection. Bytes after it belong to whoever comes next."""

    def __init__(self) -> None:
        self._buffer = b""
        self._arrived = asyncio.Event()
        self._lost = False
        self.transport: asyncio.Transport

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
            raise errors.Unavailable(f"{_NO_HUB} (status {head.status})")
        while len(self._buffer) < size:
            await self._more()
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return head, body

    async def read_line(self) -> bytes:
        """The next line, without its line feed."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > tunnel.MAX_LINE:
                raise NotPassed(_NO_HUB)
            await self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return line

    def hand_over(self) -> bytes:
        """What was read beyond the handshake; this protocol is done."""
        rest, self._buffer = self._buffer, b""
        return rest

    async def _more(self) -> None:
        if self._lost:
            raise Silent("the hub closed the connection in the middle of the handshake")
        self._arrived.clear()
        await self._arrived.wait()


async def ask_for_switch(connection: Handshake, hub: Hub, carrier: str) -> None:
    """Make the connection a tunnel's. Raises NotPassed when the other carrier may do better, else Unavailable."""
    key = websocket.new_key() if carrier == WEBSOCKET else b""
    request = (
        b"GET " + hub.prefix + tunnel.CONNECT_PATH + b" HTTP/1.1\r\n"
        + f"Host: {hub.authority}\r\nUser-Agent: herdsman-agent\r\n".encode()
        + (websocket.request_lines(key) if key else f"Connection: Upgrade\r\nUpgrade: {tunnel.PROTOCOL}\r\n".encode())
        + b"\r\n"
    )  # fmt: skip
    try:
        head, body = await connection.ask(request)
    except NotPassed:
        raise
    except errors.Unavailable as exc:
        raise NotPassed(exc.message) from exc
    if head.status in (429, 503) and (message := _message(body)):
        raise errors.Unavailable(f"the hub has no place for this connection now: {message}")
    if key:
        if not websocket.is_accepted(head, key):
            raise NotPassed(
                f"the way to the hub does not pass WebSockets: status {head.status} {_message(body)}".strip()
            )
        wrapped = websocket.WebSocketTransport(connection.transport, client=True)
        rest = connection.hand_over()
        wrapped.set_protocol(connection)
        connection.transport = wrapped
        if rest:
            wrapped.data_received(rest)
    elif head.status != 101 or head.upgrade != tunnel.PROTOCOL.encode():
        raise NotPassed(
            f"the way to the hub does not pass Upgrade: {tunnel.PROTOCOL}: status {head.status} {_message(body)}".strip()
        )


async def prove(connection: Handshake, identity: TunnelIdentity) -> Welcome:
    """Answer the hub's challenge; returns when the hub may send requests. Raises Superseded, Denied or Unavailable, and NotPassed
    when it was not the hub who ended it: something that lets the switch pass may still not pass what follows.
    """
    try:
        challenge = tunnel.parse_line(await connection.read_line())
        nonce, worker = tunnel.text_of(challenge, "nonce"), tunnel.text_of(challenge, "worker")
    except errors.BadRequest as exc:
        raise NotPassed(_NO_HUB) from exc
    if not 16 <= len(nonce) <= 256:
        raise NotPassed(_NO_HUB)
    kube_system = identity.kube_system()
    signed = tunnel.signed_bytes(nonce, identity.cluster_uid, identity.instance, kube_system)
    proof = {
        "cluster": identity.cluster_uid,
        "publicKey": identity.public_key,
        "instance": identity.instance,
        "kubeSystem": kube_system,
        "ca": identity.trusted_ca(),
        "signature": base64.urlsafe_b64encode(identity.sign(signed)).rstrip(b"=").decode("ascii"),
    }
    connection.transport.write(tunnel.pack_line(proof))
    line = await connection.read_line()
    try:
        answer = tunnel.parse_line(line)
        if answer.get("kind") == "Status":
            raise _refused(answer)
        waiting = answer.get("waiting", 0)
        return Welcome(worker, waiting if isinstance(waiting, int) else 0, tunnel.text_of(answer, "ca"))
    except errors.BadRequest as exc:
        raise NotPassed(_NO_HUB) from exc


def _refused(status: dict[str, object]) -> errors.HerdsmanError:
    code, message = status.get("code"), str(status.get("message", ""))
    if code == 409:
        return Superseded(f"the hub refuses this agent: {message}")
    if code in (401, 403, 404):
        return errors.Denied(f"the hub refuses this agent: {message}")
    return errors.Unavailable(f"the hub has no place for this connection now: {message}")


def _message(body: bytes) -> str:
    """The sentence in a `Status`, "" when the body is none: then it was not the hub who answered."""
    try:
        document = json.loads(body)
        return str(document["message"]) if document["kind"] == "Status" else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
