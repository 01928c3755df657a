"""OpenID Connect: Keycloak, Entra ID, Okta, Google, Dex and others. Authorization code with PKCE, nonce and a state that the caller keeps.

Sources: OpenID Connect Core 1.0, RFC 7636 (PKCE), RFC 9207 (who answers), RP-Initiated Logout 1.0, Back-Channel Logout 1.0, and for Entra's group overage Microsoft's
"groups overage claim".
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.providers import IdentityProvider, OidcSettings
from services.identity.foreign_token import MAX_TEXT, Refused
from services.identity.providers.base import Begun, Found, Gone, Group, Identity, Kind, Search, SignedOut
from services.identity.providers.issuer import Issuer
from services.identity.providers.logout_token import check_looks, counts_until
from services.identity.providers.web import Answer, Web

_FAILED = "the sign-in at the provider failed: try again, and tell an administrator if that does not help"
_OVERAGE = "the provider left out your groups because there are too many: ask an administrator to have it send only those assigned"
_MAX_GROUPS = 5000
_MAX_HINT = 4096
FAILED_S = 5.0
"""How long an issuer that did not give its keys is left alone: strangers can make the hub want them."""


def make_oidc(resource: IdentityProvider, settings: OidcSettings) -> OidcProvider:
    return OidcProvider(resource.name, settings)


class OidcProvider:
    """Implements `RedirectProvider` and `TellsOfSignOuts`."""

    def __init__(
        self, name: str, settings: OidcSettings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._name = name
        self._settings = settings
        self._web = Web(name, settings.ca, settings.timeout_seconds)
        self._issuer = Issuer(
            settings.issuer, settings.client_id, self._web, settings.clock_skew_seconds, now, failed_s=FAILED_S
        )

    async def test(self) -> None:
        """Discovery and keys; whether client id and secret are right shows only in a sign-in."""
        await self._issuer.metadata()
        await self._issuer.check_keys()

    async def begin(self, redirect_uri: str, state: str) -> Begun:
        metadata = await self._issuer.metadata()
        verifier, nonce = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        url = prepare_grant_uri(
            metadata.endpoint("authorization_endpoint"), self._settings.client_id, "code", redirect_uri,
            scope=" ".join(dict.fromkeys(["openid", *self._settings.scopes])), state=state, nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier), code_challenge_method="S256",
        )  # fmt: skip
        return Begun(str(url), {"verifier": verifier, "nonce": nonce})

    async def finish(self, redirect_uri: str, parameters: Mapping[str, str], secrets: Mapping[str, str]) -> Identity:
        metadata = await self._issuer.metadata()
        answering = parameters.get("iss")
        if (
            answering or metadata.document.get("authorization_response_iss_parameter_supported")
        ) and answering != self._issuer.name:
            self._log("another issuer answered", parameters)
            raise errors.Unauthenticated(_FAILED)
        if "error" in parameters:
            self._log("refused by the provider", parameters)
            if parameters["error"] in ("access_denied", "login_required", "consent_required", "interaction_required"):
                raise errors.Denied("you did not sign in at the provider, or it does not let you use this application")
            raise errors.Unauthenticated(_FAILED)
        code = parameters.get("code", "")
        if not code:
            raise errors.BadRequest("the provider's answer holds no code")
        tokens = await self._exchange(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": secrets["verifier"],
            }
        )
        claims = await self._issuer.verify(str(tokens.get("id_token") or ""), nonce=secrets["nonce"])
        return await self._identity(claims, tokens)

    async def refresh(self, account_id: str, refresh_secret: str) -> Identity:
        """By the refresh token, where the provider gave one (`offline_access`)."""
        if not refresh_secret:
            raise errors.Unauthenticated("the provider can only be asked when the person signs in")
        tokens = await self._exchange({"grant_type": "refresh_token", "refresh_token": refresh_secret}, refreshing=True)
        tokens.setdefault("refresh_token", refresh_secret)
        if tokens.get("id_token"):
            claims = await self._issuer.verify(str(tokens["id_token"]), nonce=None)
        else:
            claims = await self._userinfo(tokens)
        if not claims.get("sub") or self._account_id(claims) != account_id:
            raise Gone("the provider answered for another account")
        return await self._identity(claims, tokens)

    async def search(self, text: str, kind: Kind | None, limit: int) -> Search:
        """An issuer lists nobody. A group can be granted to by what its claim says, so that is offered as it was typed."""
        if kind == "group" and text.strip():
            return Search((Found("group", text.strip(), text.strip()),))
        return Search()

    async def end_session_url(self, hint: str, return_to: str, state: str) -> str:
        endpoint = (
            (await self._issuer.metadata()).endpoint("end_session_endpoint") if self._settings.sign_out != "hub" else ""
        )
        if not endpoint:
            return ""
        asked = {"client_id": self._settings.client_id, "post_logout_redirect_uri": return_to, "state": state}
        query = urlencode({**({"id_token_hint": hint} if hint else {}), **asked})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    async def read_sign_out(self, notice: str) -> SignedOut:
        """A logout token. Nobody is asked anything for one that does not even claim to be this issuer's for us."""
        check_looks(notice, self._settings.issuer, self._settings.client_id)
        claims = await self._issuer.verify_logout(notice)
        account_id = claims.get(self._settings.account_id_claim)
        if not isinstance(account_id, str):
            # Another claim in its place would be another person: only the session says who that is.
            account_id = ""
        if not account_id and not claims.get("sid"):
            raise Refused(f"it names neither a session nor the account by {self._settings.account_id_claim}")
        until = datetime.fromtimestamp(counts_until(claims, self._settings.clock_skew_seconds), UTC)
        return SignedOut(account_id, str(claims.get("sid", "")), str(claims["jti"]), until)

    async def aclose(self) -> None:
        await self._web.aclose()

    # ── inside ──

    async def _exchange(self, form: dict[str, str], *, refreshing: bool = False) -> dict[str, Any]:
        metadata = await self._issuer.metadata()
        settings = self._settings
        basic = bool(settings.client_secret) and metadata.supports(
            "token_endpoint_auth_methods_supported", "client_secret_basic", ["client_secret_basic"]
        )
        if not basic:
            form = {
                **form,
                "client_id": settings.client_id,
                **({"client_secret": settings.client_secret} if settings.client_secret else {}),
            }
        answer = await self._web.post(
            metadata.endpoint("token_endpoint"),
            form,
            user=settings.client_id if basic else "",
            password=settings.client_secret if basic else "",
        )
        if answer.status == 200 and answer.object:
            return answer.object
        self._log("the token endpoint refused", {"status": str(answer.status), **_error_of(answer)})
        code = answer.object.get("error")
        if refreshing and code == "invalid_grant":
            raise Gone("the provider no longer vouches for the account: it was disabled there, or its sign-in ended")
        if answer.status >= 500 or answer.status == 429:
            raise errors.Unavailable("the provider does not answer right now: try again soon")
        if code in ("invalid_client", "unauthorized_client"):
            raise errors.Unavailable("the provider refuses this hub itself: tell an administrator")
        raise errors.Unauthenticated(_FAILED)

    async def _userinfo(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        endpoint = (await self._issuer.metadata()).endpoint("userinfo_endpoint")
        if not endpoint or not tokens.get("access_token"):
            return {}
        answer = await self._web.get(endpoint, headers={"Authorization": f"Bearer {tokens['access_token']}"})
        if answer.status != 200:
            self._log("userinfo refused", {"status": str(answer.status)})
            if answer.status >= 500:
                raise errors.Unavailable("the provider does not answer right now: try again soon")
            return {}
        return answer.object

    async def _identity(self, claims: dict[str, Any], tokens: Mapping[str, Any]) -> Identity:
        settings = self._settings
        if settings.groups_claim not in claims or settings.user_name_claim not in claims:
            more = await self._userinfo(tokens)
            if more.get("sub") == claims["sub"]:
                claims = {**more, **claims}
        groups, truncated = self._groups(claims)
        name = claims.get(settings.user_name_claim) or claims.get("email") or claims["sub"]
        return Identity(
            id=self._account_id(claims), user_name=str(name), display_name=str(claims.get("name") or ""), email=str(claims.get("email") or ""),
            groups=groups, truncated=truncated, refresh_secret=str(tokens.get("refresh_token") or ""), session=_session_of(claims),
            sign_out_hint=self._hint(tokens),
        )  # fmt: skip

    def _hint(self, tokens: Mapping[str, Any]) -> str:
        """The ID token, unless an address gets too long with it: then the client id has to do."""
        hint = str(tokens.get("id_token") or "") if self._settings.sign_out != "hub" else ""
        return hint if len(hint) <= _MAX_HINT else ""

    def _account_id(self, claims: Mapping[str, Any]) -> str:
        """The id that the account has for ever. Raises Unavailable: another claim in its place would be another person."""
        found = claims.get(self._settings.account_id_claim)
        if not isinstance(found, str) or not found:
            self._log("a claim is missing", {"error": self._settings.account_id_claim})
            raise errors.Unavailable("the provider did not say which account that is: tell an administrator")
        return found

    def _groups(self, claims: Mapping[str, Any]) -> tuple[tuple[Group, ...], str]:
        claim = self._settings.groups_claim
        names = claims.get("_claim_names")
        if claims.get("hasgroups") is True or (isinstance(names, dict) and claim in names):
            return (), _OVERAGE
        listed = claims.get(claim)
        values = [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else []
        found = sorted({value for value in values if isinstance(value, str) and value})
        usable = [
            value
            for value in found
            if value.isascii() and value.isprintable() and " " not in value and len(value) <= 256
        ]
        left_out = len(found) - len(usable)
        truncated = f"{left_out} of your groups have names that cannot be used here" if left_out else ""
        return tuple(Group(value, value) for value in usable[:_MAX_GROUPS]), truncated

    def _log(self, what: str, facts: Mapping[str, str]) -> None:
        shown = {k: str(v)[:200] for k, v in facts.items() if k in ("error", "error_description", "iss", "status")}
        log.get("identity").warning("provider_answer_refused", provider=self._name, what=what, **shown)


def _session_of(claims: Mapping[str, Any]) -> str:
    found = claims.get("sid")
    return found if isinstance(found, str) and len(found) <= MAX_TEXT else ""


def _error_of(answer: Answer) -> dict[str, str]:
    return {k: str(answer.object[k]) for k in ("error", "error_description") if k in answer.object}
