"""`/agent/v1/…`: agents come in, by one of two carriers. What is switched here stands at the `doorstep` until it has proved whose it is."""

from __future__ import annotations

from collections.abc import Callable

from libs.common import errors
from libs.common.relay import tunnel, websocket
from libs.common.relay.decision import Answer, Decision, TakeOver
from libs.common.relay.head import RequestHead
from libs.common.relay.session import Session
from services.auth_proxy.clusters import ClusterIndex
from services.auth_proxy.doorstep import Doorstep
from services.auth_proxy.tunnels import LocalTunnels

PREFIX = b"/agent/v1/"
_SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + tunnel.PROTOCOL.encode() + b"\r\n\r\n"
)


class AgentRoute:
    """`ca` reads the PEM bundle of the authorities by which the hub may be known; b"" = none is published."""

    def __init__(self, clusters: ClusterIndex, tunnels: LocalTunnels, ca: Callable[[], bytes] = lambda: b"") -> None:
        self._tunnels = tunnels
        self._ca = ca
        self.doorstep = Doorstep(clusters, tunnels)

    def route(self, head: RequestHead, session: Session) -> Decision:
        if head.method != b"GET":
            raise errors.MethodNotAllowed("agents use GET here")
        if head.target == tunnel.CONNECT_PATH:
            return self._connect(head)
        if head.target == tunnel.CA_PATH and self._ca():
            return Answer(200, self._ca(), b"application/x-pem-file")
        raise errors.NotFound("there is nothing for agents under this path")

    def _connect(self, head: RequestHead) -> Decision:
        if head.has_body or head.upgrade not in (tunnel.PROTOCOL.encode(), b"websocket"):
            raise errors.BadRequest(f"this path needs Upgrade: {tunnel.PROTOCOL}, or websocket")
        if self._tunnels.draining:
            raise errors.Unavailable("this process of the hub is about to stop: connect again, to another one")
        over_websocket = head.upgrade == b"websocket"
        switch = websocket.accept_request(head) if over_websocket else _SWITCH

        def accept(taken: Session) -> None:
            transport, early = taken.give_away()
            taken.leave()
            if early:
                # An agent speaks only when it is asked: whoever does otherwise is none.
                transport.abort()
                return
            if over_websocket:
                transport = websocket.WebSocketTransport(transport, client=False)
            self.doorstep.receive(transport, taken.peer)

        return TakeOver(switch, accept)
