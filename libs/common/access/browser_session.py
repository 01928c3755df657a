"""A signed-in browser: the cookie that holds its token, and the proof that a request was made by the hub's own pages.

The front door checks both, the gateway sets them. The token of a browser session counts in that cookie alone, and only for the hub's own API: on the
way to a cluster no cookie is a credential, so that a page of another site has nothing that a browser would add by itself.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

COOKIE = "__Host-herdsman-session"
"""The prefix makes browsers insist on Secure, on Path=/ and on no Domain (RFC 6265bis 4.1.3.2)."""
CSRF_COOKIE = "__Host-herdsman-csrf"
"""Read by the hub's own pages, and by nobody else's: the proof below. It stays in the browser as long as the session's cookie."""
CSRF_HEADER = "X-CSRF-Token"
_PURPOSE = b"herdsman csrf 1"


def csrf_token(secret: str) -> str:
    """What a page must send along with every change: made from the session's secret, so nothing is stored for it."""
    digest = hmac.new(secret.encode("ascii", "replace"), _PURPOSE, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
