"""Reading the signed JWTs that others send: what they say, within bounds. Pure: no clock, no keys, and nothing that is read here is proof of anything.

Sources: RFC 7519 (claims), RFC 8725 (3.1 algorithms).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from services.identity.providers.algorithms import ALGORITHMS

MAX_BYTES = 16 * 1024
MAX_TEXT = 1024
"""Of an issuer, a subject, a session, an id, a claim that is compared."""


class Refused(Exception):
    """A token that is worth nothing here. The text is for the log; whoever sent it hears the same in every case."""


def read_parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token that nobody has proved yet. Raises Refused for what is no JWT that was signed with a public key's algorithm."""
    if not token or len(token) > MAX_BYTES or not token.isascii():
        raise Refused("it is empty, too large, or not ASCII")
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise Refused("it is no signed JWT")
    header = _decode(parts[0])
    if header.get("alg") not in ALGORITHMS:
        raise Refused(f"its algorithm is not one with public keys: {shown(str(header.get('alg')), 20)}")
    return header, _decode(parts[1])


def text_of(claims: Mapping[str, Any], name: str) -> str:
    """Raises Refused for a claim that is absent, empty, too long or no text."""
    value = claims.get(name)
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT:
        raise Refused(f"it has no usable {name}")
    return value


def moment_of(claims: Mapping[str, Any], name: str) -> float:
    """A moment in Unix seconds. Raises Refused for a claim that is absent or none."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise Refused(f"it has no usable {name}")
    return float(value)


def shown(text: str, longest: int = 200) -> str:
    """A text of a stranger, fit for a log and a description."""
    return "".join(c if c.isprintable() else "?" for c in text[:longest])


def _decode(part: str) -> dict[str, Any]:
    try:
        read = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError) as exc:
        raise Refused("it cannot be read") from exc
    if not isinstance(read, dict):
        raise Refused("it cannot be read")
    return read
