"""What a workload's token says, and which credentials it fits. Pure: no clock, no keys, nothing here is proof of anything.

Sources: RFC 7519 (claims), RFC 8725 (3.1 algorithms, 3.9 audience), RFC 8693 (the exchange).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from libs.common.resources.federation import FederatedCredentialSpec
from services.identity.foreign_token import MAX_TEXT, Refused, moment_of, read_parts, text_of

SKEW_S = 60
MAX_AGE_S = 86_400


def read_unproved_issuer(token: str) -> str:
    """The issuer that a token claims to be from: only to know whose keys to look at. Raises Refused for what is no signed JWT."""
    _, claims = read_parts(token)
    return text_of(claims, "iss")


def check_claims(claims: Mapping[str, Any], issuer: str, now_s: float) -> None:
    """Issuer and time of a token whose signature is good. `issuer` without a slash at its end. Raises Refused."""
    if text_of(claims, "iss") not in (issuer, f"{issuer}/"):
        raise Refused("it is of another issuer")
    text_of(claims, "sub")
    expires, issued = moment_of(claims, "exp"), moment_of(claims, "iat")
    if now_s >= expires + SKEW_S:
        raise Refused("it has expired")
    if issued > now_s + SKEW_S:
        raise Refused("it is from the future")
    if now_s - issued > MAX_AGE_S + SKEW_S:
        raise Refused("it is older than a day")
    if "nbf" in claims and moment_of(claims, "nbf") > now_s + SKEW_S:
        raise Refused("it is not good yet")


def find_mismatch(spec: FederatedCredentialSpec, claims: Mapping[str, Any]) -> str:
    """Why a token that is proved is not what this credential is for; empty: it is."""
    if not set(_audiences(claims)) & set(spec.audiences):
        return "audience"
    if not fits(spec.subject, str(claims.get("sub") or "")):
        return "subject"
    for name, pattern in spec.claims.items():
        value = _plain(claims.get(name))
        if value is None or not fits(pattern, value):
            return f"claim {name}"
    return ""


def fits(pattern: str, text: str) -> bool:
    """Whether all of `text` is what the pattern says: `*` is any text, the rest stands for itself. Linear in the text for each `*`."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    *middle, last = rest
    if not text.startswith(first) or len(text) > MAX_TEXT:
        return False
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - at >= len(last) and text.endswith(last)


def _audiences(claims: Mapping[str, Any]) -> Iterable[str]:
    given = claims.get("aud")
    return (
        [given]
        if isinstance(given, str)
        else [a for a in given if isinstance(a, str)]
        if isinstance(given, list)
        else []
    )


def _plain(value: Any) -> str | None:
    """A claim as patterns see it. Lists and objects match nothing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None
