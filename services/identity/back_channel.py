"""A provider tells that somebody was signed out there: what that person's sign-in there gave here ends (OpenID Connect Back-Channel Logout 1.0).

Whose word is it → was it heard before → whose sessions → end them → remember that it was heard. Ending twice does no harm, so the last comes last: a
notice that could not be followed is no replay when the provider sends it again.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from libs.common import errors
from libs.common.access.principal import principal_of
from libs.common.bus.base import Message
from libs.common.contracts import messages as m
from libs.common.observe import log
from libs.common.resources.meta import check_label
from libs.common.store.base import Store
from services.identity.accounts import Accounts
from services.identity.audit.attempts import Attempt, Attempts
from services.identity.foreign_token import Refused
from services.identity.provider_sessions import ProviderSessions, digest_of
from services.identity.providers.base import SignedOut, TellsOfSignOuts
from services.identity.providers.running import Providers
from services.identity.tokens import SIGN_INS, Tokens

REFUSED = "this logout token is not accepted: an administrator can read why in the hub's log"
NOT_NOW = "the hub cannot follow this logout token at the moment: send it again"
CLOCKS_S = 60
"""Replicas' clocks differ: an id is remembered for so much longer than its token counts."""


@dataclass(slots=True)
class BackChannel:
    """What the method needs; stateless."""

    store: Store
    providers: Providers
    accounts: Accounts
    sessions: ProviderSessions
    tokens: Tokens
    attempts: Attempts
    now: Callable[[], datetime]

    async def logout(self, request: m.BackChannelLogout, _message: Message) -> m.BackChannelLoggedOut:
        """Any refusal is an answer. Whoever asked hears nothing of people: one who is not signed in here is as good an answer as one who was."""
        async with self.attempts.begin(
            "sign-out-by-provider", address=request.client_address, provider=request.provider, always=True
        ) as attempt:
            return await self._follow(request, attempt)

    async def _follow(self, request: m.BackChannelLogout, attempt: Attempt) -> m.BackChannelLoggedOut:
        facts = {"provider": request.provider, "client_address": request.client_address}
        try:
            told = await self._read(request)
            heard = await self._check_unheard(request.provider, told)
            user_uid, ended = await self._end(request.provider, told)
            await self._remember(heard, told)
        except Refused as exc:
            attempt.fail("refused", 400)
            attempt.note = str(exc)[:300]
            log.get("identity").warning("back_channel_logout_refused", reason=str(exc)[:300], **facts)
            return m.BackChannelLoggedOut(error="invalid_request", description=REFUSED)
        except (errors.Unavailable, errors.Invalid, errors.Timeout, errors.Conflict) as exc:
            attempt.fail("unavailable", 503)
            log.get("identity").error("back_channel_logout_failed", error=exc.message, **facts)
            return m.BackChannelLoggedOut(error="temporarily_unavailable", description=NOT_NOW)
        attempt.account = self.attempts.names.name_of(user_uid)
        attempt.reason, attempt.note = "account" if not told.session else "session", f"{ended} tokens revoked"
        log.get("identity").info(
            "back_channel_logout", user_uid=user_uid, whole_account=not told.session, tokens_revoked=ended, **facts
        )
        return m.BackChannelLoggedOut()

    async def _read(self, request: m.BackChannelLogout) -> SignedOut:
        """Raises Refused, Unavailable, Invalid."""
        try:
            async with self.providers.use(check_label(request.provider)) as provider:
                if not isinstance(provider, TellsOfSignOuts):
                    raise Refused("this provider tells of no sign-outs")
                return await provider.read_sign_out(request.logout_token)
        except (ValueError, errors.NotFound, errors.Denied) as exc:
            raise Refused("there is no such provider, or it is disabled") from exc

    async def _check_unheard(self, provider: str, told: SignedOut) -> str:
        """The key under which it will be remembered. Raises Refused for a replay."""
        key = f"logouttokens.{digest_of(provider, told.token_id)}"
        try:
            await self.store.get(key)
        except errors.NotFound:
            return key
        raise Refused("it was sent before")

    async def _remember(self, key: str, told: SignedOut) -> None:
        left_s = math.ceil((told.until - self.now()).total_seconds())
        # Sent twice at once, it ended the same sessions twice.
        with contextlib.suppress(errors.AlreadyExists):
            await self.store.create(key, secrets.token_bytes(12), ttl_s=max(left_s, 0) + CLOCKS_S)

    async def _end(self, provider: str, told: SignedOut) -> tuple[str, int]:
        """Browsers' sessions, command lines, and kubectl's tokens made with these: those of the session, or, where none is named, all from there.

        Of a person who is named as well, sign-ins end, too, of which nobody wrote down the session. Tokens that people made for scripts are no sign-ins.
        """
        digest = digest_of(provider, told.session) if told.session else ""
        uid = await self._owner(provider, told.account_id) if told.account_id else await self.sessions.find(digest)
        if not uid:
            return "", 0
        return uid, await self.tokens.revoke_all(uid, purposes=SIGN_INS, provider=provider, session=digest)

    async def _owner(self, provider: str, account_id: str) -> str:
        try:
            _, user = await self.accounts.owner(principal_of(provider, "user", account_id))
        except ValueError:
            # An id that no account here can have.
            return ""
        return user.uid if user is not None else ""
