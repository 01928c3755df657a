"""The contract of reverse connections, which the hub and its agents share.

1. The agent opens TLS to the hub and sends `GET /agent/v1/challenge`; the answer is JSON `{"nonce": …}`, made for this connection.
2. On the same connection it sends `GET /agent/v1/connect` with `Upgrade: herdsman-tunnel/1`, its cluster's uid, its public NKEY, the
   random id of its process, and the signature of `signed_bytes` in base64url. The answer is 101, or a `Status`: 403 for an unknown
   cluster or key, 409 when another process with the same identity connected later.
3. From the 101 on the hub sends HTTP/1.1 requests and the agent answers them. While the connection rests, the hub sends `PING` every
   10 s and the agent answers 204; with `Connection: close` in it when it wants to give the connection up.

One connection carries one request or one upgraded stream at a time. No clock is involved: the proof signs a nonce that the hub
made for this very connection.
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
