"""The credential in a request's head: where it may stand, and that there is one at most. `authenticate` says whose it is."""

from __future__ import annotations

import base64
import binascii

from libs.common import errors
from libs.common.relay.head import RequestHead

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
