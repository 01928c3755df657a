"""Signing out: the token that was used is gone, and the browser is told where its provider can be left as well (OpenID Connect RP-Initiated Logout 1.0).

The session here ends first, whatever the provider says, and nobody waits long for a provider that is away.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.contracts import messages as m
from libs.common.crypto.envelope import Verifier
from libs.common.observe import log
from libs.common.resources.identity import Token
from libs.common.store.base import Store
from libs.common.store.objects import read
from services.identity.audit.attempts import Attempts
from services.identity.provider_sessions import ProviderSessions
from services.identity.providers.base import RedirectProvider
from services.identity.providers.running import Providers
from services.identity.tokens import Tokens

HAVE_PAGES = ("github", "oidc")
"""Types of providers where people sign in on the provider's own page, and have a session there."""
ASK_S = 3.0
"""For a provider whose metadata is not known yet."""


@dataclass(slots=True)
class SignOuts:
    """What the method needs; stateless."""

    store: Store
    providers: Providers
    sessions: ProviderSessions
    tokens: Tokens
    verifier: Verifier
    attempts: Attempts

    async def revoke(self, request: m.TokenRevoke, _message: Message) -> m.TokenRevoked:
        """Raises BadRequest for who came without a token."""
        principal = self.verifier.open(request.identity, owing=True)
        if not principal.token:
            raise errors.BadRequest("this caller did not come with a token, so there is none to revoke")
        async with self.attempts.begin("revoke-token", caller=principal, always=True) as attempt:
            attempt.account, attempt.resource, attempt.name = principal.user, "tokens", principal.token
            attempt.reason = "gone_already"
            try:
                token = await read(self.store, Token, principal.token)
            except errors.NotFound:
                # It was revoked a moment ago: that is as signed out as can be.
                return m.TokenRevoked()
            if await self.tokens.revoke(token.name):
                attempt.reason = "sign_out"
        if token.spec.purpose != "session" or not request.return_to:
            return m.TokenRevoked()
        return await self._leave(token, request.return_to)

    async def _leave(self, token: Token, return_to: str) -> m.TokenRevoked:
        resource = self.providers.resource(token.spec.provider)
        if resource is None or resource.spec.type not in HAVE_PAGES:
            return m.TokenRevoked()
        state = secrets.token_urlsafe(24)
        try:
            hint = await self.sessions.take_hint(token.name)
            async with asyncio.timeout(ASK_S), self.providers.use(resource.name) as provider:
                if not isinstance(provider, RedirectProvider):
                    return m.TokenRevoked()
                url = await provider.end_session_url(hint, return_to, state)
        except (errors.HerdsmanError, TimeoutError) as exc:
            log.get("identity").warning("provider_not_left", provider=resource.name, error=str(exc) or "no answer")
            url = ""
        if url:
            return m.TokenRevoked(url=url, state=state)
        return m.TokenRevoked(still_signed_in_at=resource.spec.display_name or resource.name)
