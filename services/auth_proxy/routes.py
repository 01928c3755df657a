"""The table: path → target. The first prefix that fits wins; all else is the gateway's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from libs.common import errors
from libs.common.relay import sockets
from libs.common.relay.decision import Answer, Decision, Later, Route
from libs.common.relay.head import Field, RequestHead
from libs.common.relay.session import Session
from services.auth_proxy import agent_route, cluster_route, nats_route
from services.auth_proxy.forwarded import TrustedProxies
from services.auth_proxy.gateway_route import GatewayRoute
from services.auth_proxy.token_cache import NotRemembered

_FETCHES = 12
"""For a token and those that it was made with, and once more for each that changes just then."""
_TEXT = b"text/plain; charset=utf-8"


class Routes:
    """`waiting_for` names what this process itself still waits for, `proxies` whose word counts about who the client is."""

    def __init__(
        self,
        cluster: Route,
        agent: Route,
        nats: Route,
        gateway: GatewayRoute,
        waiting_for: Callable[[], list[str]],
        proxies: TrustedProxies,
        fetch: Callable[[str], Awaitable[None]],
    ) -> None:
        self._cluster = cluster
        self._agent = agent
        self._nats = nats
        self._gateway = gateway
        self._waiting_for = waiting_for
        self._proxies = proxies
        self._fetch = fetch

    def route(self, head: RequestHead, session: Session) -> Decision:
        """Decided at once, but for a token that this process has not seen lately: that one is read first."""
        fields = head.fields
        try:
            return self._route(head, session)
        except NotRemembered as missing:
            name = missing.name
            return Later(lambda: self._route_later(head, session, fields, name))

    async def _route_later(self, head: RequestHead, session: Session, fields: list[Field], name: str) -> Decision:
        for _ in range(_FETCHES):
            await self._fetch(name)
            # What was taken out of it (a browser's credential) has to be found again.
            head.fields = fields
            try:
                decision = self._route(head, session)
            except NotRemembered as missing:
                name = missing.name
                continue
            return await decision.decide() if isinstance(decision, Later) else decision
        raise errors.Unavailable("the token changes faster than it can be read: try again", retry_after_s=1)

    def _route(self, head: RequestHead, session: Session) -> Decision:
        if self._proxies:
            # A balancer's connection carries calls of many people, one after the other.
            session.peer = self._proxies.find_client(sockets.find_peer(session.transport), head)
        target = head.target
        if target.startswith(cluster_route.PREFIX):
            return self._cluster(head, session)
        if target.startswith(agent_route.PREFIX):
            return self._agent(head, session)
        path = target.partition(b"?")[0]
        if path in nats_route.PATHS:
            return self._nats(head, session)
        if path in (b"/healthz", b"/livez"):
            return Answer(200, b"ok", _TEXT)
        if path == b"/readyz":
            return self._ready(head)
        return self._gateway.route(head, session)

    def _ready(self, head: RequestHead) -> Decision:
        """Ready means: this process is, and the gateway says so of itself and of all services behind it."""
        missing = self._waiting_for()
        if missing:
            return Answer(503, f"auth_proxy waits for: {', '.join(missing)}\n".encode(), _TEXT)
        return self._gateway.ready(head)
