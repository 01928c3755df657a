"""Keeps what is known of accounts fresh: groups are read again in the background, and who is gone at the provider loses access.

Keys are user names, level-based: a look at a user refreshes each account that is due and says when the next is. Only people who hold a token are
refreshed; everybody else is seen at the next sign-in, and whether they hold one is looked up as often as a refresh would be due. A provider that is
away costs nobody anything until `maxAgeSeconds` has passed, and a second replica that refreshes the same account does no harm.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.crypto.sealed import KeyRing
from libs.common.observe import log
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources.identity import User
from libs.common.resources.providers import IdentityProvider, LinkedIdentity
from libs.common.store.objects import Objects
from services.identity.accounts import Accounts, refresh_key
from services.identity.audit.attempts import Attempts
from services.identity.providers.base import Gone
from services.identity.providers.running import Providers
from services.identity.tokens import Tokens

if TYPE_CHECKING:
    from libs.common.store.informer import Change

AWAY_S = 60.0
"""How soon a provider that did not answer is asked again for the same person."""
JITTER = 0.1


class Refresher:
    """One user at a time."""

    def __init__(
        self, users: Objects[User], providers: Providers, accounts: Accounts, tokens: Tokens, ring: KeyRing, now: Callable[[], datetime],
        attempts: Attempts,
    ) -> None:  # fmt: skip
        self._users = users
        self._providers = providers
        self._accounts = accounts
        self._tokens = tokens
        self._ring = ring
        self._now = now
        self._attempts = attempts

    async def reconcile(self, name: str) -> Outcome:
        user = self._users.get(name)
        if user is None or not user.status.identities or not user.spec.enabled:
            return DONE
        waits = [await self._look(user, identity) for identity in user.status.identities]
        due = [wait_s for wait_s in waits if wait_s is not None]
        return After(min(due)) if due else DONE

    async def _look(self, user: User, identity: LinkedIdentity) -> float | None:
        """Seconds until this account is due again; None = never by itself."""
        provider = self._providers.resource(identity.provider)
        if provider is None or not provider.spec.enabled or identity.gone:
            return None
        age_s = (self._now() - identity.refreshed_at).total_seconds()
        left_s = provider.spec.refresh_seconds - age_s
        if left_s > 0:
            return left_s + random.uniform(0, JITTER * provider.spec.refresh_seconds)
        if not (await self._tokens.records.read(user.uid)).tokens:
            return provider.spec.refresh_seconds * random.uniform(1, 1 + JITTER)
        try:
            return await self._refresh(user, identity, provider)
        except Gone as exc:
            await self._end(user, identity, exc.message)
            return None
        except errors.Unauthenticated as exc:
            # Only the person can tell, at the next sign-in: until the snapshot is too old, it counts.
            log.get("identity").info(
                "account_not_refreshed", user=user.name, provider=provider.name, reason=exc.message
            )
            return max(AWAY_S, provider.spec.max_age_seconds - age_s)
        except errors.Unavailable as exc:
            log.get("identity").warning(
                "account_not_refreshed", user=user.name, provider=provider.name, reason=exc.message
            )
            return AWAY_S * random.uniform(0.7, 1.3)

    async def _refresh(self, user: User, identity: LinkedIdentity, provider: IdentityProvider) -> float:
        sealed = user.private.sealed.get(refresh_key(provider.name), "")
        secret = self._ring.open(sealed, f"{user.uid}/{refresh_key(provider.name)}") if sealed else ""
        account_id = identity.principal_id.split(":", 2)[2]
        async with self._providers.use(provider.name) as running:
            fresh = await running.refresh(account_id, secret)
        stored = await self._accounts.note(user, provider, fresh)
        after = next((i for i in stored.status.identities if i.principal_id == identity.principal_id), None)
        if after is not None and after.groups != identity.groups:
            lost = sorted(set(identity.groups) - set(after.groups))
            if lost:
                self._attempts.note(
                    "refresh-groups", "groups_lost", account=user.name, provider=provider.name, note=f"{len(lost)} lost: {', '.join(lost[:20])}"
                )  # fmt: skip
            log.get("identity").info(
                "groups_changed", user=user.name, provider=provider.name, gained=sorted(set(after.groups) - set(identity.groups))[:50],
                lost=lost[:50],
            )  # fmt: skip
        return float(provider.spec.refresh_seconds)

    async def _end(self, user: User, identity: LinkedIdentity, reason: str) -> None:
        """The account is no more: it counts for nothing, and what it signed in with ends."""
        await self._accounts.mark_gone(user, identity.principal_id, reason)
        ended = await self._tokens.revoke_all(user.uid, provider=identity.provider)
        log.get("identity").info(
            "account_gone", user=user.name, provider=identity.provider, reason=reason, tokens_revoked=ended
        )
        self._attempts.note(
            "refresh-groups", "account_gone", account=user.name, provider=identity.provider, note=f"{ended} tokens revoked: {reason}"
        )  # fmt: skip


def keys_of_user(change: Change) -> Iterable[str]:
    """A user with a new account; what a refresh wrote itself is known to be due later."""
    return () if change.after is None else (change.key.partition(".")[2],)
