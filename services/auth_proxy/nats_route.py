"""`/nats`: agents reach the bus through the same door, as a WebSocket that is spliced to nats-server's loopback listener.

Who they are is proved to nats-server itself, by the JWT and the key's signature; the door looks at nothing but the handshake.
"""

from __future__ import annotations

from libs.common import errors
from libs.common.relay import rebuild
from libs.common.relay.decision import Decision, Relay
from libs.common.relay.head import RequestHead, ResponseHead
from libs.common.relay.pool import Pool
from libs.common.relay.session import Session

PATHS = (b"/nats", b"/nats/")
_ALLOWED = frozenset(
    {
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"user-agent",
    }
)


class NatsRoute:
    def __init__(self, pool: Pool | None, authority: bytes) -> None:
        self._pool = pool
        self._authority = authority

    def route(self, head: RequestHead, _session: Session) -> Decision:
        if self._pool is None:
            raise errors.NotFound("this hub does not serve its bus here")
        if head.upgrade != b"websocket" or head.method != b"GET":
            raise errors.BadRequest("/nats is for agents, which speak WebSocket")
        built = rebuild.request_head(head, b"/", allowed=_ALLOWED, host=self._authority)
        return Relay(self._pool.fresh, built, _reshape, upgrade=head.upgrade)


def _reshape(head: ResponseHead, close: bool) -> bytes:
    return rebuild.response_head(head, close=close)
