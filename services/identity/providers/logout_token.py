"""What a logout token must say to be an issuer's word that somebody was signed out there. Pure: no clock, no keys.

Sources: OpenID Connect Back-Channel Logout 1.0 (2.4 what it holds, 2.6 how it is checked), RFC 8725 (3.11: one kind of token is never taken for another).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.identity.foreign_token import Refused, moment_of, read_parts, text_of

EVENT = "http://schemas.openid.net/event/backchannel-logout"
MAX_AGE_S = 3600
"""None counts longer than this after it was issued, whatever it says: for so long its id has to be remembered."""
_TYPES = ("logout+jwt", "application/logout+jwt", "jwt")
"""Issuers that are older than the type's name say JWT, or nothing."""


def check_looks(token: str, issuer: str, client_id: str) -> None:
    """Before anybody is asked for keys: whether it claims to be of this issuer and for us. Proof of nothing. Raises Refused."""
    header, claims = read_parts(token)
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
    if text_of(claims, "iss") != issuer:
        raise Refused("it is of another issuer")
    _check_audience(claims, client_id)
    expires, issued = moment_of(claims, "exp"), moment_of(claims, "iat")
    if now_s >= min(expires, issued + MAX_AGE_S) + skew_s:
        raise Refused("it has expired")
    if issued > now_s + skew_s:
        raise Refused("it is from the future")
    if "nbf" in claims and moment_of(claims, "nbf") > now_s + skew_s:
        raise Refused("it is not good yet")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise Refused("it tells of no sign-out: the event is missing")
    if "nonce" in claims:
        # Only an ID token has one.
        raise Refused("it holds a nonce")
    text_of(claims, "jti")
    named = [text_of(claims, name) for name in ("sub", "sid") if name in claims]
    if not named:
        raise Refused("it says neither who nor which session")


def counts_until(claims: Mapping[str, Any], skew_s: int) -> float:
    """The moment, in Unix seconds, from which a token that was checked counts no more."""
    return min(moment_of(claims, "exp"), moment_of(claims, "iat") + MAX_AGE_S) + skew_s


def _check_audience(claims: Mapping[str, Any], client_id: str) -> None:
    """As for an ID token: for us, and for others too only where we are the one it was issued to."""
    given = claims.get("aud")
    audiences = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    authorized = claims.get("azp")
    if client_id not in audiences or (authorized is not None and authorized != client_id):
        raise Refused("it is for another client")
    if len(audiences) > 1 and authorized != client_id:
        raise Refused("it is for other clients as well")
