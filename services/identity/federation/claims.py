"""What a workload's token says, and which credentials it fits. Pure: no clock, no keys, nothing here is proof of anything.

Sources: RFC 7519 (claims), RFC 8725 (3.1 algorithms, 3.9 audience), RFC 8693 (the exchange).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from libs.common.resources.federation import FederatedCredentialSpec
from services.identity.providers.algorithms import ALGORITHMS

MAX_BYTES = 16 * 1024
SKEW_S = 60
MAX_AGE_S = 86_400
MAX_TEXT = 1024
"""Of a subject, an issuer, a claim that is compared."""


class Refused(Exception):
    """A token that is worth nothing here. The text is for the log; whoever asked hears the same in every case."""


def read_unproved_issuer(token: str) -> str:
    """The issuer that a token claims to be from: only to know whose keys to look at. Raises Refused for what is no signed JWT."""
    if not token or len(token) > MAX_BYTES or not token.isascii():
        raise Refused("it is empty, too large, or not ASCII")
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise Refused("it is no signed JWT")
    algorithm = _read_part(parts[0]).get("alg")
    if algorithm not in ALGORITHMS:
        raise Refused(f"its algorithm is not one with public keys: {shown(str(algorithm), 20)}")
    return _text(_read_part(parts[1]), "iss")


def check_claims(claims: Mapping[str, Any], issuer: str, now_s: float) -> None:
    """Issuer and time of a token whose signature is good. `issuer` without a slash at its end. Raises Refused."""
    if _text(claims, "iss") not in (issuer, f"{issuer}/"):
        raise Refused("it is of another issuer")
    _text(claims, "sub")
    expires, issued = _moment(claims, "exp"), _moment(claims, "iat")
    if now_s >= expires + SKEW_S:
        raise Refused("it has expired")
    if issued > now_s + SKEW_S:
        raise Refused("it is from the future")
    if now_s - issued > MAX_AGE_S + SKEW_S:
        raise Refused("it is older than a day")
    if "nbf" in claims and _moment(claims, "nbf") > now_s + SKEW_S:
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


def shown(text: str, longest: int = 200) -> str:
    """A text of a stranger, fit for a log and a description."""
    return "".join(c if c.isprintable() else "?" for c in text[:longest])


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
