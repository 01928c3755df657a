"""Everything that is no cluster, no agent and no bus goes to the gateway, with the caller's signed envelope and never one that came.

No token passes too: sign-in, health, import manifest and registration are public, and the gateway knows which. A bad token is refused
here.
"""

from __future__ import annotations

from collections.abc import Callable

from libs.common import errors
from libs.common.crypto.envelope import HEADER, Signer
from libs.common.relay import rebuild
from libs.common.relay.decision import Decision, Relay
from libs.common.relay.head import RequestHead, ResponseHead
from libs.common.relay.names import GATEWAY_REQUEST, IDENTITY_PREFIX, UNBUFFERED
from libs.common.relay.pool import Pool
from libs.common.relay.session import Session
from services.auth_proxy.authenticate import Authenticator, Caller
from services.auth_proxy.calls import Calls, is_watch
from services.auth_proxy.cluster_route import check_only_servers_write

FIRST_BYTE_S = 60.0
_ENVELOPE = HEADER.encode("ascii") + b": "
_VERBOSE = b"/readyz?verbose"
"""As Kubernetes' own: with each service's name."""


class GatewayRoute:
    def __init__(
        self, authenticator: Authenticator, signer: Signer, monotonic: Callable[[], float], pool: Pool, calls: Calls
    ) -> None:
        self._authenticator = authenticator
        self._signer = signer
        self._monotonic = monotonic
        self._pool = pool
        self._calls = calls

    def route(self, head: RequestHead, session: Session) -> Decision:
        caller: Caller | None = None
        self._calls.check_room()
        try:
            check_no_identity(head)
            if head.upgrade and head.upgrade != b"websocket":
                raise errors.BadRequest("the only protocol to switch to here is websocket")
            caller = self._authenticator.authenticate_browser(head)
        except errors.HerdsmanError as exc:
            self._calls.refused(head, session, exc, caller)
            raise
        own = [b"X-Forwarded-For: " + session.peer.encode("ascii"), b"X-Forwarded-Proto: https"]
        if caller is not None:
            own.append(_ENVELOPE + caller.envelope(self._signer, self._monotonic()))
        call = self._calls.admit(head, session, caller, head.target)
        watch = is_watch(head.target)
        return Relay(
            self._pool.fresh if head.upgrade else self._pool,
            rebuild.request_head(head, head.target, allowed=GATEWAY_REQUEST, own=own),
            call.announcing(_reshape_watch if watch else _reshape),
            upgrade=head.upgrade,
            first_byte_s=None if head.upgrade or watch else FIRST_BYTE_S,
            watcher=call,
            tap=call.tap,
        )

    def ready(self, head: RequestHead) -> Decision:
        """The gateway's own readiness, asked without a caller and in our own words: nothing that came is part of the question."""
        if head.method not in (b"GET", b"HEAD") or head.has_body or head.upgrade:
            raise errors.MethodNotAllowed("this address answers GET and HEAD, without body and upgrade")
        target = _VERBOSE if head.target == _VERBOSE else b"/readyz"
        built = rebuild.request_head(head, target, allowed=frozenset(), host=b"hub")
        return Relay(self._pool, built, _reshape, first_byte_s=5.0)


def check_no_identity(head: RequestHead) -> None:
    """Nobody is anybody else towards the hub itself: a right to impersonate in a cluster is none here. Raises Denied or BadRequest."""
    if any(lower.startswith(IDENTITY_PREFIX) for lower, _, _ in head.claims):
        raise errors.Denied(
            "nobody can be impersonated in the hub's own API: --as, --as-group and Impersonate-* headers are for calls to clusters"
        )
    check_only_servers_write(head)


def _reshape(head: ResponseHead, close: bool) -> bytes:
    return rebuild.response_head(head, close=close)


def _reshape_watch(head: ResponseHead, close: bool) -> bytes:
    return rebuild.response_head(head, close=close, own=UNBUFFERED)
