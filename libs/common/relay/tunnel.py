"""The contract of reverse connections, which the hub and its agents share. `proto/tunnel.md` is its specification.

1. The agent opens TLS to the hub and sends `GET /agent/v1/connect` with `Upgrade: herdsman-tunnel/2`; where only WebSockets pass, with
   `Upgrade: websocket` and the subprotocol `herdsman-tunnel.2`, and the bytes below travel in binary frames. The answer is 101.
2. On the switched connection three lines of JSON: the hub's challenge, the agent's proof, the hub's welcome or a `Status` and the end.
3. Then the hub sends HTTP/1.1 requests and the agent answers them. While the connection rests, the hub sends pings.

One connection carries one request or one upgraded stream at a time. The nonce is made for this very connection, inside of it, so no
clock is involved, and whatever forwards the connection has to keep nothing together but its bytes.
"""

from __future__ import annotations

import json
from typing import Any

from libs.common import errors

CONNECT_PATH = b"/agent/v1/connect"
CA_PATH = b"/agent/v1/ca"
PROTOCOL = "herdsman-tunnel/2"
SUBPROTOCOL = "herdsman-tunnel.2"
"""The same as a WebSocket subprotocol, whose name may hold no slash."""

MAX_LINE = 16 * 1024
"""Bytes in one line of the handshake, its line feed included."""
HANDSHAKE_S = 10.0

PING_HEADER = b"herdsman-ping"
DRAIN_HEADER = b"herdsman-drain"
CA_HEADER = b"herdsman-ca"

PING_EVERY_S = 10.0
"""Each resting connection."""
PROBE_EVERY_S = 2.5
"""Each agent process, on whichever of its resting connections waited longest."""
PING_TIMEOUT_S = 4.0
WORKER_SILENCE_S = 8.0
"""An agent that heard nothing from a process of the hub for so long, on no connection, cuts all that it has with it."""
SILENCE_S = 35.0
"""One resting connection without a ping for so long is closed, even if others of the same process are well."""


def signed_bytes(nonce: str, cluster_uid: str, instance: str, kube_system: str) -> bytes:
    """What the agent signs: the protocol, the hub's nonce, and what it says about itself."""
    return "\n".join((PROTOCOL, nonce, cluster_uid, instance, kube_system)).encode()


def ping(ca: str, *, drain: bool) -> bytes:
    """The request that proves that a resting connection lives. `drain`: this process of the hub is about to stop."""
    lines = [b"OPTIONS * HTTP/1.1", b"Host: agent", b"Herdsman-Ping: 1"]
    if ca:
        lines.append(b"Herdsman-CA: " + ca.encode("ascii"))
    if drain:
        lines.append(b"Herdsman-Drain: 1")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def pack_line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def parse_line(line: bytes) -> dict[str, Any]:
    """One line of the handshake without its line feed. Raises BadRequest."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise errors.BadRequest("a line of the handshake is no JSON") from exc
    if not isinstance(document, dict):
        raise errors.BadRequest("a line of the handshake is no JSON object")
    return document


def text_of(document: dict[str, Any], name: str) -> str:
    """A text in a line of the handshake; "" when it is missing. Raises BadRequest when it is something else."""
    value = document.get(name, "")
    if not isinstance(value, str) or not value.isascii() or not (value.isprintable() or not value):
        raise errors.BadRequest(f'"{name}" in the handshake must be a text of printable ASCII characters')
    return value
