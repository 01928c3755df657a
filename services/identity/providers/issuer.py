"""An OpenID Connect issuer: where its endpoints are, and whether a token is its word. Used by `oidc`.

Sources: OpenID Connect Core 1.0 (3.1.3.7), Discovery 1.0 (4.3), RFC 8725 (algorithms are ours to choose, never the token's).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from libs.common import errors
from libs.common.observe import log
from services.identity.providers.web import Web

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
"""Signatures with public keys alone: with a shared secret, or none, a token would be anybody's word."""
METADATA_S = 3600.0
KEYS_AGAIN_S = 10.0
"""A token with a key that nobody knows makes us ask for the keys again, no more often than this."""
_NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_ENDPOINTS = (*_NEEDED, "userinfo_endpoint", "end_session_endpoint")


@dataclass(frozen=True, slots=True)
class Metadata:
    """The discovery document, with endpoints that may be used."""

    document: dict[str, Any]

    def endpoint(self, name: str) -> str:
        return str(self.document.get(name) or "")

    def supports(self, name: str, value: str, default: list[str]) -> bool:
        listed = self.document.get(name)
        return value in (listed if isinstance(listed, list) else default)


class Issuer:
    """Keeps metadata and keys for a while."""

    def __init__(
        self,
        url: str,
        client_id: str,
        web: Web,
        skew_s: int,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._client_id = client_id
        self._web = web
        self._skew_s = skew_s
        self._now = now
        self._monotonic = monotonic
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._lock = asyncio.Lock()

    async def metadata(self) -> Metadata:
        """Raises Unavailable, Invalid where the document can't be this issuer's."""
        known = self._metadata
        if known is not None and self._monotonic() - known[0] < METADATA_S:
            return known[1]
        address = f"{self._url}/.well-known/openid-configuration"
        answer = await self._web.get(address)
        if answer.status != 200 or not answer.object:
            raise errors.Unavailable(f"{address} answered {answer.status} and no metadata: check the issuer's address")
        if str(answer.object.get("issuer", "")).rstrip("/") != self._url:
            raise errors.Invalid(
                f"the metadata at {address} is of another issuer: give the issuer exactly as it calls itself"
            )
        for name in _ENDPOINTS:
            _check_endpoint(self._url, name, str(answer.object.get(name) or ""))
        made = Metadata(answer.object)
        self._metadata = (self._monotonic(), made)
        return made

    @property
    def name(self) -> str:
        """The issuer as its tokens call it, which may end with a slash."""
        known = self._metadata
        return str(known[1].document.get("issuer")) if known is not None else self._url

    async def check_keys(self) -> None:
        """Whether there are keys to check tokens with. Raises Unavailable."""
        await self._fetch_keys()

    async def verify(self, token: str, *, nonce: str | None) -> dict[str, Any]:
        """The claims of an ID token of this issuer for us. Raises Unauthenticated; what was wrong is in the log."""
        await self.metadata()
        try:
            claims = (await self._decode(token)).claims
            registry = jwt.JWTClaimsRegistry(
                now=lambda: int(self._now().timestamp()), leeway=self._skew_s, iss={"essential": True, "value": self.name},
                aud={"essential": True, "value": self._client_id}, exp={"essential": True}, iat={"essential": True},
                sub={"essential": True},
            )  # fmt: skip
            registry.validate(claims)
        except (JoseError, ValueError, TypeError, KeyError) as exc:
            self._refuse(f"{type(exc).__name__}: {exc}", exc)
        if nonce is not None and claims.get("nonce") != nonce:
            self._refuse("the nonce is not the one that was sent", None)
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        authorized = claims.get("azp")
        if (authorized is not None or len(audiences) > 1) and authorized != self._client_id:
            self._refuse("it was issued to another client", None)
        return dict(claims)

    async def _decode(self, token: str) -> jwt.Token:
        fetched, keys = self._keys or await self._fetch_keys()
        try:
            return jwt.decode(token, keys, algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            if self._monotonic() - fetched < KEYS_AGAIN_S:
                raise
        # The issuer may have new keys.
        _, keys = await self._fetch_keys()
        return jwt.decode(token, keys, algorithms=ALGORITHMS)

    async def _fetch_keys(self) -> tuple[float, KeySet]:
        async with self._lock:
            address = (await self.metadata()).endpoint("jwks_uri")
            answer = await self._web.get(address)
            listed = answer.object.get("keys")
            if answer.status != 200 or not isinstance(listed, list):
                raise errors.Unavailable(f"{address} answered {answer.status} and no keys")
            usable = [
                key
                for key in listed
                if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use") != "enc"
            ]
            try:
                keys = KeySet.import_key_set({"keys": usable})
            except (JoseError, ValueError, TypeError, KeyError) as exc:
                raise errors.Unavailable(f"the keys at {address} cannot be read") from exc
            self._keys = (self._monotonic(), keys)
            return self._keys

    def _refuse(self, why: str, exc: BaseException | None) -> NoReturn:
        log.get("identity").warning("id_token_refused", issuer=self._url, reason=why[:300])
        raise errors.Unauthenticated(
            "the provider's answer could not be verified: sign in again, and tell an administrator if that does not help"
        ) from exc


def _check_endpoint(issuer: str, name: str, address: str) -> None:
    """Raises Invalid for an endpoint that is missing, or where secrets would cross the network unencrypted."""
    if not address:
        if name in _NEEDED:
            raise errors.Invalid(f"the issuer's metadata has no {name}")
        return
    parts = urlsplit(address)
    plain_is_fine = issuer.startswith("http://") and parts.hostname == urlsplit(issuer).hostname
    if parts.scheme != "https" and not (parts.scheme == "http" and plain_is_fine):
        raise errors.Invalid(f"the issuer's {name} is not https")
