"""The credential in a request's head: where it may stand, and that there is one at most. `authenticate` says whose it is."""

from __future__ import annotations

import base64
import binascii
import hmac

from libs.common import errors
from libs.common.access.browser_session import COOKIE, CSRF_HEADER, csrf_token
from libs.common.relay.head import RequestHead

_COOKIE = COOKIE.encode("ascii")
_CSRF = CSRF_HEADER.lower().encode("ascii")
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_FOREIGN = "this request did not come from the hub's own pages: reload the page and try again"
_SUBPROTOCOL = b"base64url.bearer.authorization.k8s.io."
REFUSED = "the token is not valid: it may have expired or been revoked. Sign in again"


def find_credential(head: RequestHead) -> bytes | None:
    """The bearer token of a request: from Authorization, or from the WebSocket subprotocol that browsers use for it, which is
    taken out of the head. Raises Unauthenticated for other schemes and for two credentials."""
    values = head.values(b"authorization")
    from_protocol = _take_subprotocol(head) if head.upgrade == b"websocket" else None
    if not values:
        return from_protocol
    if len(values) > 1 or from_protocol is not None:
        raise errors.Unauthenticated("the request holds more than one credential")
    scheme, _, credential = values[0].partition(b" ")
    credential = credential.strip(b" ")
    if scheme.lower() != b"bearer" or not credential:
        raise errors.Unauthenticated("only Bearer tokens are accepted here: sign in, or take a kubeconfig from the hub")
    return credential


def _take_subprotocol(head: RequestHead) -> bytes | None:
    found: bytes | None = None
    fields = []
    for field in head.fields:
        lower, value, _ = field
        if lower != b"sec-websocket-protocol" or _SUBPROTOCOL not in value:
            fields.append(field)
            continue
        offered = [part.strip(b" \t") for part in value.split(b",")]
        for part in [p for p in offered if p.startswith(_SUBPROTOCOL)]:
            if found is not None:
                raise errors.Unauthenticated("the request holds more than one credential")
            text = part[len(_SUBPROTOCOL) :]
            try:
                found = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
            except binascii.Error as exc:
                raise errors.Unauthenticated(REFUSED) from exc
            offered.remove(part)
        kept = b", ".join(offered)
        if kept:
            fields.append((lower, kept, b"Sec-WebSocket-Protocol: " + kept))
    if found is not None:
        # A list of this request's own: what the connection remembers of its last head stays as it came.
        head.fields = fields
    return found


def take_session(head: RequestHead) -> bytes | None:
    """The token in the cookie of a browser's session, for the hub's own API alone; None = there is none. It is taken out of the head.

    Raises Unauthenticated for two. `is_from_our_page` says whether it counts.
    """
    found: list[bytes] = []
    fields = []
    for field in head.fields:
        lower, value, _ = field
        if lower != b"cookie" or _COOKIE not in value:
            fields.append(field)
            continue
        kept = []
        for part in value.split(b";"):
            name, _, text = part.strip(b" ").partition(b"=")
            if name == _COOKIE:
                found.append(text)
            else:
                kept.append(part.strip(b" "))
        if kept:
            joined = b"; ".join(kept)
            fields.append((lower, joined, b"Cookie: " + joined))
    if not found:
        return None
    # A list of this request's own: what the connection remembers of its last head stays as it came.
    head.fields = fields
    if len(found) > 1:
        raise errors.Unauthenticated("the request holds more than one credential")
    return found[0]


def is_from_our_page(head: RequestHead, session: bytes) -> bool:
    """Whether a request that came with a session's cookie was made by its person. Whoever changes something, or opens a stream, must prove to be one
    of the hub's pages: raises Denied. A page of ours that has lost its proof is nobody's, so that its person can sign in again.
    """
    site = head.value(b"sec-fetch-site")
    if head.method in _SAFE and not head.upgrade:
        # A link from elsewhere may lead here; what another site's page fetches by itself is nobody's.
        return site in (b"", b"same-origin", b"none") or head.value(b"sec-fetch-mode") == b"navigate"
    secret = session.rpartition(b"_")[2].decode("ascii", "replace")
    given = head.values(_CSRF)
    proved = len(given) == 1 and hmac.compare_digest(given[0], csrf_token(secret).encode("ascii"))
    if site == b"same-origin":
        return proved
    if not proved or site or not _is_own_origin(head):
        raise errors.Denied(_FOREIGN)
    return True


def _is_own_origin(head: RequestHead) -> bool:
    """For browsers that do not say where a request comes from in `Sec-Fetch-Site`."""
    origin = head.value(b"origin")
    return not origin or origin == b"https://" + head.value(b"host")
