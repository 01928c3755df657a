"""The hub's half of the handshake in `libs.common.relay.handshake`: a connection stands here until it has proved whose it is.

Anybody can come so far, so both the time and the number are bounded. When it is full, whoever stood longest goes: an agent needs
one round trip, and who only takes up room waits for nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import secrets
from typing import Any

import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from libs.common import errors
from libs.common.relay import tunnel
from libs.common.relay.sockets import close_gently
from services.auth_proxy.cluster_tunnels import ClusterTunnels
from services.auth_proxy.clusters import ClusterIndex
from services.auth_proxy.instances import Claim
from services.auth_proxy.tunnels import LocalTunnels

log = structlog.get_logger(component="agents")
_INSTANCE = re.compile(r"[0-9a-zA-Z-]{8,64}")
_KUBE_SYSTEM = re.compile(r"[0-9a-zA-Z-]{0,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}|")
_USER_KEY = 20 << 3
_UNKNOWN = "the cluster is not known here, or the key is not its agent's: register again with a new registration token"


class Doorstep:
    """Owns the connections that are being proved."""

    def __init__(self, clusters: ClusterIndex, tunnels: LocalTunnels, *, room: int = 1000) -> None:
        self._clusters = clusters
        self._tunnels = tunnels
        self._room = room
        self._guests: dict[_Guest, None] = {}

    @property
    def standing(self) -> int:
        return len(self._guests)

    def receive(self, transport: asyncio.Transport, peer: str) -> None:
        """Challenge whoever is on this transport, which was just switched to the tunnel's protocol."""
        if len(self._guests) >= self._room:
            next(iter(self._guests)).send_away()
        guest = _Guest(self, transport, peer)
        self._guests[guest] = None
        guest.challenge(self._tunnels.worker)

    def close(self) -> None:
        for guest in list(self._guests):
            guest.send_away()

    def leaves(self, guest: _Guest) -> None:
        self._guests.pop(guest, None)

    def check(self, proof: dict[str, Any], nonce: str, peer: str) -> tuple[ClusterTunnels, Claim]:
        """Whose connection it is. Raises BadRequest, Denied, Conflict or Unavailable."""
        uid, key = tunnel.text_of(proof, "cluster"), tunnel.text_of(proof, "publicKey")
        claim = Claim(
            tunnel.text_of(proof, "instance"), tunnel.text_of(proof, "kubeSystem"), tunnel.text_of(proof, "ca")
        )
        if _INSTANCE.fullmatch(claim.instance) is None or _KUBE_SYSTEM.fullmatch(claim.kube_system) is None:
            raise errors.BadRequest("the instance or the uid of kube-system is malformed")
        if _DIGEST.fullmatch(claim.ca) is None:
            raise errors.BadRequest("the digest of the certificate authorities is malformed")
        cluster = self._clusters.get(uid)
        if cluster is None or not cluster.public_key or cluster.public_key != key:
            log.warning("agent_refused", cluster_uid=uid[:64], peer=peer, reason="unknown cluster or key")
            raise errors.Denied(_UNKNOWN)
        signed = tunnel.signed_bytes(nonce, uid, claim.instance, claim.kube_system)
        if not is_genuine(key, tunnel.text_of(proof, "signature").encode(), signed):
            log.warning("agent_refused", cluster=cluster.name, peer=peer, reason="signature")
            raise errors.Denied(_UNKNOWN)
        connections = self._tunnels.cluster(cluster)
        connections.admit(claim)
        return connections, claim

    def welcome(self, connections: ClusterTunnels) -> bytes:
        # One of those that wait gets this connection.
        return tunnel.pack_line({"waiting": max(0, connections.waiting - 1), "ca": self._tunnels.ca})


class _Guest(asyncio.Protocol):
    """One connection between the switch and the welcome. It speaks once, one line, after it was asked."""

    def __init__(self, home: Doorstep, transport: asyncio.Transport, peer: str) -> None:
        self._home = home
        self._transport = transport
        self._peer = peer
        self._nonce = secrets.token_urlsafe(32)
        self._line = b""
        self._done = False
        self._timer = asyncio.get_running_loop().call_later(tunnel.HANDSHAKE_S, self.send_away)
        transport.set_protocol(self)

    def challenge(self, worker: str) -> None:
        self._transport.write(tunnel.pack_line({"nonce": self._nonce, "worker": worker}))

    def send_away(self) -> None:
        self._leave()
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._done:
            return
        self._line += data
        end = self._line.find(b"\n")
        if end < 0 and len(self._line) <= tunnel.MAX_LINE:
            return
        if end < 0 or end + 1 != len(self._line):
            # Too long, or more than the proof: an agent speaks only when it is asked.
            self.send_away()
            return
        self._leave()
        try:
            proof = tunnel.parse_line(self._line[:end])
            connections, claim = self._home.check(proof, self._nonce, self._peer)
        except errors.HerdsmanError as exc:
            self._transport.write(tunnel.pack_line(exc.to_status()))
            close_gently(self._transport)
            return
        self._transport.write(self._home.welcome(connections))
        connections.add(claim.instance, self._transport)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._leave()

    def _leave(self) -> None:
        self._done = True
        self._timer.cancel()
        self._home.leaves(self)


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
