"""The last step before an API server, the same wherever its credential is: in a cluster's agent (`dial`), or in the front door for a
cluster that it reaches directly.

A request from the hub comes in with the caller's identity and no credential. It is checked (`guard`), the caller's wish to be
somebody else goes to the API server's own access review (`review`), the credential is added, the head is built anew, the identity last.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable

from libs.common import errors
from libs.common.relay import guard, impersonation, rebuild, status
from libs.common.relay.decision import Relay, Reshape, Source
from libs.common.relay.head import RequestHead, ResponseHead
from libs.common.relay.names import KUBERNETES_REQUEST
from libs.common.relay.pool import Address, Pool
from libs.common.relay.review import Reviewed, Reviewer
from libs.common.relay.sweeper import Sweeper

UPGRADES = frozenset({b"websocket", b"spdy/3.1"})
"""Protocols that may be switched to on the way to an API server."""
# Behind these paths somebody else answers, who may have a 401 of its own to say.
_PROXIED = re.compile(rb"/(?:pods|services|nodes)/[^/?]+/proxy(?:[/?]|$)")
_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):[^:]+")


def pass_on(head: ResponseHead, close: bool) -> bytes:
    return rebuild.response_head(head, close=close)


class _Who:
    """Who calls, by the lines of the head that passed the guard; and whom the caller wishes to be. `tail` is what all heads to the API server
    end with as long as `way`, the terminal's address and credential, is the same."""

    __slots__ = ("identity", "lines", "tail", "way", "wish")

    def __init__(self, lines: list[bytes], wish: impersonation.Wish | None) -> None:
        self.lines = lines
        self.wish = wish
        self.identity = _join(lines)
        self.tail = b""
        self.way: object = None


class Terminal:
    """`api_server` and `authorization` are asked for each use, so that both may change: the first says where to dial, the second is the
    value of the Authorization header, b"" when the TLS context holds a client certificate instead; both may raise Unavailable.
    `refused` hears that the API server did not take the credential.
    """

    def __init__(
        self,
        api_server: Callable[[], Address],
        authorization: Callable[[], bytes],
        *,
        sweeper: Sweeper,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._api_server = api_server
        self._authorization = authorization
        self._refused = refused
        self._sweeper = sweeper
        self._pool = Pool(api_server, sweeper=sweeper)
        self._address: Address | None = None
        self._way = object()
        """Another one after each change of address or credential."""
        self._watched: tuple[Reshape, Reshape] | None = None
        self._secret = b""
        self._own: tuple[bytes, ...] = ()
        self._reserved = impersonation.RESERVED_NAMESPACES

    def relay(self, head: RequestHead, reshape: Reshape = pass_on) -> Relay:
        """How a request of the hub goes on. Raises Denied, BadRequest or Unavailable."""
        who = head.block.memo
        if not isinstance(who, _Who):
            # A pure function of the fields: on a connection that repeats them it is asked once.
            who = head.block.memo = _Who(
                guard.check(head), impersonation.parse_wish(head, impersonation.FROM_HUB)
            )  # fmt: skip
        if head.upgrade and head.upgrade not in UPGRADES:
            raise errors.BadRequest("the only protocols to switch to are websocket and SPDY/3.1")
        address = self._api_server()
        if address is not self._address and address != self._address:
            self._move(address)
        secret = self._authorization()
        if secret != self._secret:
            self._use(secret)
        source: Source = self._pool.fresh if head.upgrade else self._pool
        if who.wish is None:
            if who.way is not self._way:
                who.tail, who.way = self._tail(head, address, who.identity), self._way
            tail = who.tail
        else:
            impersonation.check_reserved(who.wish, self._reserved)
            lines = guard.caller_of(who.lines)
            caller = lines[0].partition(b": ")[2].decode("utf-8", "replace")
            reviewer = Reviewer(self._pool, address.authority, self._own, _join(lines), caller)
            source = Reviewed(source, reviewer, who.wish)
            tail = self._tail(head, address, _join(impersonation.render_identity(who.wish, lines)))
        if b"/proxy" not in head.target or _PROXIED.search(head.target) is None:
            reshape = self._watch_for_refusal(reshape)
        return Relay(source, b"%b %b%b" % (head.method, head.target, tail), reshape, head.upgrade)

    def _tail(self, head: RequestHead, address: Address, identity: bytes) -> bytes:
        """The end of the head, with the credential, the identity last and seen to be there."""
        tail = rebuild.request_tail(
            head, allowed=KUBERNETES_REQUEST, host=address.authority, own=self._own, identity=identity
        )
        rebuild.check_identity(tail, identity)
        return tail

    def close(self) -> None:
        """Close the idle connections; what is under way ends by itself."""
        self._pool.close()

    def _watch_for_refusal(self, reshape: Reshape) -> Reshape:
        """A 401 is about our credential: passed on, it would tell a caller to sign in again, who is signed in."""
        if self._watched is not None and reshape is self._watched[0]:
            return self._watched[1]

        def look(head: ResponseHead, close: bool) -> bytes:
            if head.status == 401:
                self._refused()
                raise status.BadGateway(
                    "the cluster's API server does not take the credential of Herdsman any more: it has expired or was revoked"
                )
            return reshape(head, close)

        self._watched = (reshape, look)
        return look

    def _move(self, address: Address) -> None:
        """Another address or client certificate: connections that were dialled by the one before are not used for new calls."""
        if self._address is not None:
            self._pool.close()
            self._pool = Pool(self._api_server, sweeper=self._sweeper)
        self._address = address
        self._way = object()

    def _use(self, secret: bytes) -> None:
        """Make the credential's line ready, and reserve the accounts beside the one whose token it is."""
        self._secret = secret
        self._way = object()
        self._own = (b"Authorization: " + secret,) if secret else ()
        namespace = find_namespace(secret)
        self._reserved = impersonation.RESERVED_NAMESPACES | ({namespace} if namespace else set())


def find_namespace(authorization: bytes) -> str:
    """The namespace of the service account whose token this is (a JWT, of which only the subject is read); "" for any other credential."""
    parts = authorization.removeprefix(b"Bearer ").split(b".")
    if len(parts) != 3:
        return ""
    try:
        subject = json.loads(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))["sub"]
        found = _ACCOUNT.fullmatch(subject)
    except (binascii.Error, ValueError, KeyError, TypeError):
        return ""
    return found[1] if found else ""


def _join(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)
