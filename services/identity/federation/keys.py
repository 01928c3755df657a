"""The keys of one source, and what they signed. Imported when the first token comes: the libraries behind it are large, and most hubs need none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from services.identity.federation.sources import Source, SourceKey
from services.identity.foreign_token import Refused
from services.identity.providers.issuer import KEYS_ALONE, Issuer, decode_signed, read_keys
from services.identity.providers.web import Web

MOST_KEYS = 50
FAILED_S = 10.0
"""How long an issuer that did not answer is left alone."""
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_FORGED = (JoseError, ValueError, TypeError, KeyError, RecursionError)


class WrittenKeys:
    """Keys that an administrator wrote down."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def decode(self, token: str) -> dict[str, Any]:
        try:
            return dict(decode_signed(token, self._keys).claims)
        except _FORGED as exc:
            raise _refused(exc) from exc

    async def check_keys(self) -> None:
        """They are here."""

    async def aclose(self) -> None:
        """Nothing is open."""


class DiscoveredKeys:
    """Keys that the issuer publishes."""

    def __init__(self, issuer: Issuer, web: Web) -> None:
        self._issuer = issuer
        self._web = web

    async def decode(self, token: str) -> dict[str, Any]:
        try:
            return await self._issuer.decode(token)
        except _FORGED as exc:
            raise _refused(exc) from exc

    async def check_keys(self) -> None:
        await self._issuer.check_keys()

    async def aclose(self) -> None:
        await self._web.aclose()


def make_source(
    key: SourceKey, now: Callable[[], datetime], monotonic: Callable[[], float], timeout_s: float
) -> Source:
    """Asks nobody yet. Raises ValueError for keys that cannot be read."""
    if key.jwks:
        return WrittenKeys(parse_jwks(key.jwks))
    web = Web("federation", key.ca, timeout_s)
    return DiscoveredKeys(Issuer(key.issuer, "", web, 0, now, monotonic, needed=KEYS_ALONE, failed_s=FAILED_S), web)


def parse_jwks(text: str) -> KeySet:
    """The public keys in a JWK set. Raises ValueError that says what is wrong with it."""
    try:
        listed = json.loads(text)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise ValueError("it is no JWK set: give the JSON that the issuer answers at its jwks_uri") from exc
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_KEYS:
        raise ValueError(f"it must hold 1 to {MOST_KEYS} keys")
    if any(isinstance(key, dict) and any(part in key for part in _PRIVATE) for key in listed):
        raise ValueError("it holds a private or shared key: give public keys alone, and replace that one")
    return read_keys(listed)


def _refused(exc: BaseException) -> Refused:
    return Refused(f"its signature is not good: {type(exc).__name__}")
