"""`/agent/v1/…`: agents come in. The hub's half of the handshake in `libs.common.relay.handshake`; afterwards the connection is a
reverse connection in `tunnels`.

The nonce is made for one TCP connection and used once, so a proof is worth nothing elsewhere and no clock is involved.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from libs.common import errors
from libs.common.relay import tunnel
from libs.common.relay.decision import Answer, Decision, TakeOver
from libs.common.relay.head import RequestHead
from libs.common.relay.session import Session
from services.auth_proxy.clusters import ClusterIndex
from services.auth_proxy.tunnels import LocalTunnels

log = structlog.get_logger(component="agents")
PREFIX = b"/agent/v1/"
_INSTANCE = re.compile(rb"[0-9a-zA-Z-]{8,64}")
_USER_KEY = 20 << 3
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + tunnel.PROTOCOL.encode() + b"\r\n\r\n"
)
_UNKNOWN = "the cluster is not known here, or the key is not its agent's: register again with a new registration token"


class AgentRoute:
    def __init__(self, clusters: ClusterIndex, tunnels: LocalTunnels) -> None:
        self._clusters = clusters
        self._tunnels = tunnels

    def route(self, head: RequestHead, session: Session) -> Decision:
        if head.method != b"GET":
            raise errors.MethodNotAllowed("agents use GET here")
        if head.target == tunnel.CHALLENGE_PATH:
            session.memo = secrets.token_urlsafe(32)
            return Answer(200, json.dumps({"nonce": session.memo}).encode())
        if head.target == tunnel.CONNECT_PATH:
            return self._connect(head, session)
        raise errors.NotFound("there is nothing for agents under this path")

    def _connect(self, head: RequestHead, session: Session) -> Decision:
        nonce, session.memo = session.memo, None
        if head.upgrade != tunnel.PROTOCOL.encode() or head.has_body:
            raise errors.BadRequest(f"this path needs Upgrade: {tunnel.PROTOCOL}")
        if not isinstance(nonce, str):
            raise errors.BadRequest(f"ask for {tunnel.CHALLENGE_PATH.decode()} on this connection first")
        uid = _one(head, tunnel.CLUSTER).decode("ascii", "replace")
        public_key = _one(head, tunnel.PUBLIC_KEY).decode("ascii", "replace")
        instance = _one(head, tunnel.INSTANCE)
        if _INSTANCE.fullmatch(instance) is None:
            raise errors.BadRequest(f"{tunnel.INSTANCE} is malformed")
        cluster = self._clusters.get(uid)
        if cluster is None or not cluster.public_key or cluster.public_key != public_key:
            log.warning("agent_refused", cluster_uid=uid[:64], peer=session.peer, reason="unknown cluster or key")
            raise errors.Denied(_UNKNOWN)
        if not is_genuine(public_key, _one(head, tunnel.SIGNATURE), tunnel.signed_bytes(nonce, uid)):
            log.warning("agent_refused", cluster=cluster.name, peer=session.peer, reason="signature")
            raise errors.Denied(_UNKNOWN)
        connections = self._tunnels.source(cluster)
        connections.admit(instance.decode("ascii"))

        def accept(taken: Session) -> None:
            transport, early = taken.give_away()
            taken.leave()
            if early:
                # An agent speaks only when it is asked: whoever does otherwise is none.
                transport.abort()
                return
            connections.add(instance.decode("ascii"), transport)

        return TakeOver(_SWITCH, accept)


def _one(head: RequestHead, name: str) -> bytes:
    values = head.values(name.lower().encode("ascii"))
    if len(values) != 1:
        raise errors.BadRequest(f"{name} must be there exactly once")
    return values[0]


def is_genuine(public_key: str, signature: bytes, signed: bytes) -> bool:
    """Whether the NKEY (NATS ADR-14: base32 of prefix byte, key, CRC-16) signed these bytes."""
    try:
        raw = base64.b32decode(public_key + "=" * (-len(public_key) % 8))
        if len(raw) != 35 or raw[0] != _USER_KEY or binascii.crc_hqx(raw[:33], 0) != int.from_bytes(raw[33:], "little"):
            return False
        made = base64.urlsafe_b64decode(signature + b"=" * (-len(signature) % 4))
        Ed25519PublicKey.from_public_bytes(raw[1:33]).verify(made, signed)
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True
