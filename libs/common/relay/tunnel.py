"""The contract of reverse connections, which the hub and its agents share. `proto/tunnel.md` says the same in prose.

An agent dials the hub, proves on that very connection that it holds its cluster's key, and from the answer 101 on the hub
speaks HTTP/1.1 towards the agent, one request or one upgraded stream at a time. No clock is involved: the proof signs a nonce
that the hub made for this connection.
"""

from __future__ import annotations

CHALLENGE_PATH = b"/agent/v1/challenge"
CONNECT_PATH = b"/agent/v1/connect"
PROTOCOL = "herdsman-tunnel/1"

CLUSTER = "Herdsman-Cluster"
PUBLIC_KEY = "Herdsman-Public-Key"
SIGNATURE = "Herdsman-Signature"
INSTANCE = "Herdsman-Instance"

PING_HEADER = b"herdsman-ping"
PING = b"OPTIONS * HTTP/1.1\r\nHost: agent\r\nHerdsman-Ping: 1\r\n\r\n"
PING_EVERY_S = 10.0
PING_TIMEOUT_S = 10.0
SILENCE_S = 35.0
"""An agent that heard nothing on an idle connection for so long closes it: the hub is gone and the network did not say so."""


def signed_bytes(nonce: str, cluster_uid: str) -> bytes:
    """What the agent signs: the protocol, the hub's nonce, the cluster it speaks for."""
    return b"\n".join((PROTOCOL.encode(), nonce.encode(), cluster_uid.encode()))
