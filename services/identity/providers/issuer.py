"""An OpenID Connect issuer: where its endpoints are, and whether a token is its word. Used by `oidc` and `federation`.

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
from services.identity.foreign_token import Refused
from services.identity.providers.algorithms import ALGORITHMS
from services.identity.providers.logout_token import check_claims, check_type
from services.identity.providers.web import Web

METADATA_S = 3600.0
KEYS_MOST_S = 86400.0
"""Keys that could not be asked for again for so long count no more."""
KEYS_AGAIN_S = 10.0
"""A token with a key that nobody knows makes us ask for the keys again, no more often than this."""
SIGN_IN = ("authorization_endpoint", "token_endpoint", "jwks_uri")
KEYS_ALONE = ("jwks_uri",)
"""What an issuer of workloads' tokens has: nobody signs in there."""
KEYS_TYPE = "application/jwk-set+json, application/json"
"""Kubernetes' API server answers 406 to who wants plain JSON alone."""
_ENDPOINTS = (*SIGN_IN, "userinfo_endpoint", "end_session_endpoint")


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
    """Keeps metadata and keys for a while, and for `failed_s` that they could not be had. `needed`: endpoints that there must be."""

    def __init__(
        self,
        url: str,
        client_id: str,
        web: Web,
        skew_s: int,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        needed: tuple[str, ...] = SIGN_IN,
        failed_s: float = 0.0,
    ) -> None:
        self._url = url
        self._needed = needed
        self._failed_s = failed_s
        self._failed: tuple[float, str] | None = None
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
            _check_endpoint(self._url, name, str(answer.object.get(name) or ""), needed=name in self._needed)
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
        await self._fetch_keys(self._keys)

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

    async def verify_logout(self, token: str) -> dict[str, Any]:
        """The claims of a logout token of this issuer for us. Raises Refused; Unavailable or Invalid without keys."""
        try:
            signed = await self._decode(token)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as exc:
            raise Refused(f"its signature is not good: {type(exc).__name__}") from exc
        check_type(signed.header)
        check_claims(signed.claims, self.name, self._client_id, self._now().timestamp(), self._skew_s)
        return dict(signed.claims)

    async def decode(self, token: str) -> dict[str, Any]:
        """What a token says that one of this issuer's keys signed; whether it is for us, and now, is not looked at.

        Raises JoseError or ValueError where none did, Unavailable or Invalid without keys.
        """
        return dict((await self._decode(token)).claims)

    async def _decode(self, token: str) -> jwt.Token:
        known = await self._current_keys()
        try:
            return decode_signed(token, known[1])
        except (JoseError, ValueError):
            if self._monotonic() - known[0] < KEYS_AGAIN_S:
                raise
        # The issuer may have new keys.
        return decode_signed(token, (await self._fetch_keys(known))[1])

    async def _current_keys(self) -> tuple[float, KeySet]:
        """Asked for again now and again, so that a key which the issuer took back counts no longer."""
        known = self._keys
        age_s = 0.0 if known is None else self._monotonic() - known[0]
        if known is None or age_s >= METADATA_S:
            try:
                return await self._fetch_keys(known)
            except errors.HerdsmanError as exc:
                if known is None or age_s >= KEYS_MOST_S:
                    raise
                log.get("identity").warning("issuer_keys_not_renewed", issuer=self._url, error=exc.message)
        return known

    async def _fetch_keys(self, known: tuple[float, KeySet] | None = None) -> tuple[float, KeySet]:
        """Keys newer than the `known` ones: those who ask at the same time share one answer, or one failure."""
        async with self._lock:
            if self._keys is not None and self._keys is not known:
                return self._keys
            if self._failed is not None and self._monotonic() - self._failed[0] < self._failed_s:
                raise errors.Unavailable(self._failed[1])
            try:
                self._keys = (self._monotonic(), await self._read_keys())
            except errors.HerdsmanError as exc:
                self._failed = (self._monotonic(), exc.message)
                raise
            return self._keys

    async def _read_keys(self) -> KeySet:
        address = (await self.metadata()).endpoint("jwks_uri")
        answer = await self._web.get(address, headers={"Accept": KEYS_TYPE})
        listed = answer.object.get("keys")
        if answer.status != 200 or not isinstance(listed, list):
            raise errors.Unavailable(f"{address} answered {answer.status} and no keys")
        try:
            return read_keys(listed)
        except ValueError as exc:
            raise errors.Unavailable(f"the keys at {address} cannot be read") from exc

    def _refuse(self, why: str, exc: BaseException | None) -> NoReturn:
        log.get("identity").warning("id_token_refused", issuer=self._url, reason=why[:300])
        raise errors.Unauthenticated(
            "the provider's answer could not be verified: sign in again, and tell an administrator if that does not help"
        ) from exc


def read_keys(listed: list[Any]) -> KeySet:
    """The public keys for signatures in the `keys` of a JWK set. Raises ValueError where there is none."""
    usable = [
        key
        for key in listed
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use") != "enc"
    ]
    try:
        return KeySet.import_key_set({"keys": usable})
    except (JoseError, ValueError, TypeError, KeyError) as exc:
        raise ValueError(f"no key can be read: {type(exc).__name__}") from exc


def decode_signed(token: str, keys: KeySet) -> jwt.Token:
    """Raises JoseError or ValueError unless one of these keys signed it, by an algorithm with public keys."""
    return jwt.decode(token, keys, algorithms=ALGORITHMS)


def _check_endpoint(issuer: str, name: str, address: str, *, needed: bool) -> None:
    """Raises Invalid for an endpoint that is missing, or where secrets would cross the network unencrypted."""
    if not address:
        if needed:
            raise errors.Invalid(f"the issuer's metadata has no {name}")
        return
    parts = urlsplit(address)
    plain_is_fine = issuer.startswith("http://") and parts.hostname == urlsplit(issuer).hostname
    if parts.scheme != "https" and not (parts.scheme == "http" and plain_is_fine):
        raise errors.Invalid(f"the issuer's {name} is not https")
