"""What a logout token must say to be an issuer's word that somebody was signed out there. Pure: no clock, no keys.

Sources: OpenID Connect Back-Channel Logout 1.0 (2.4 what it holds, 2.6 how it is checked), RFC 8725 (3.11: one kind of token is never taken for another).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from services.identity.providers.algorithms import ALGORITHMS
from services.identity.providers.base import Refused

EVENT = "http://schemas.openid.net/event/backchannel-logout"
MAX_BYTES = 16 * 1024
MAX_TEXT = 1024
"""Of an issuer, a subject, a session, an id."""
MAX_AGE_S = 3600
"""None counts longer than this after it was issued, whatever it says: for so long its id has to be remembered."""
_TYPES = ("logout+jwt", "application/logout+jwt", "jwt")
"""Issuers that are older than the type's name say JWT, or nothing."""


def check_looks(token: str, issuer: str, client_id: str) -> None:
    """Before anybody is asked for keys: whether it claims to be of this issuer and for us. Proof of nothing. Raises Refused."""
    if not token or len(token) > MAX_BYTES or not token.isascii():
        raise Refused("it is empty, too large, or not ASCII")
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise Refused("it is no signed JWT")
    header, claims = _read_part(parts[0]), _read_part(parts[1])
    if header.get("alg") not in ALGORITHMS:
        raise Refused("its algorithm is not one with public keys")
    check_type(header)
    if str(claims.get("iss", "")).rstrip("/") != issuer.rstrip("/"):
        raise Refused("it is of another issuer")
    _check_audience(claims, client_id)


def check_type(header: Mapping[str, Any]) -> None:
    """Raises Refused for what says that it is some other kind of token."""
    kind = header.get("typ", "jwt")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise Refused("it is another kind of token, by its typ")


def check_claims(claims: Mapping[str, Any], issuer: str, client_id: str, now_s: float, skew_s: int) -> None:
    """All that 2.6 asks of a token whose signature is good, but for whether its id was seen before. Raises Refused."""
    if _text(claims, "iss") != issuer:
        raise Refused("it is of another issuer")
    _check_audience(claims, client_id)
    expires, issued = _moment(claims, "exp"), _moment(claims, "iat")
    if now_s >= min(expires, issued + MAX_AGE_S) + skew_s:
        raise Refused("it has expired")
    if issued > now_s + skew_s:
        raise Refused("it is from the future")
    if "nbf" in claims and _moment(claims, "nbf") > now_s + skew_s:
        raise Refused("it is not good yet")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise Refused("it tells of no sign-out: the event is missing")
    if "nonce" in claims:
        # Only an ID token has one.
        raise Refused("it holds a nonce")
    _text(claims, "jti")
    named = [_text(claims, name) for name in ("sub", "sid") if name in claims]
    if not named:
        raise Refused("it says neither who nor which session")


def counts_until(claims: Mapping[str, Any], skew_s: int) -> float:
    """The moment, in Unix seconds, from which a token that was checked counts no more."""
    return min(_moment(claims, "exp"), _moment(claims, "iat") + MAX_AGE_S) + skew_s


def _check_audience(claims: Mapping[str, Any], client_id: str) -> None:
    """As for an ID token: for us, and for others too only where we are the one it was issued to."""
    given = claims.get("aud")
    audiences = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    authorized = claims.get("azp")
    if client_id not in audiences or (authorized is not None and authorized != client_id):
        raise Refused("it is for another client")
    if len(audiences) > 1 and authorized != client_id:
        raise Refused("it is for other clients as well")


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise Refused(f"it has no usable {name}")
    return value


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise Refused(f"it has no usable {name}")
    return float(value)


def _read_part(part: str) -> dict[str, Any]:
    try:
        read = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError) as exc:
        raise Refused("it cannot be read") from exc
    if not isinstance(read, dict):
        raise Refused("it cannot be read")
    return read
