"""Signing in with a password at any provider: the hub's own accounts, or a directory. `handlers.login` asks, once the throttle let it.

One answer for all that is wrong with a name and password, and about the same time for a name that exists and one that does not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.identity import User
from libs.common.resources.meta import check_label
from libs.common.resources.providers import LOCAL
from libs.common.store.base import Store
from libs.common.store.objects import modify, read
from services.identity.accounts import Accounts
from services.identity.passwords import Passwords
from services.identity.providers.base import PasswordProvider, Provider
from services.identity.providers.running import Providers

WRONG = "the user name or the password is wrong, or the user is disabled"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who proved to be whom. `notices` are for the person; `session` is the digest of the session at the provider, where that is known.

    `until`: what comes of it ends then at the latest.
    """

    user: User
    provider: str
    notices: tuple[str, ...] = ()
    session: str = ""
    until: datetime | None = None


@dataclass(slots=True)
class PasswordSignIn:
    """What it needs; stateless."""

    store: Store
    passwords: Passwords
    providers: Providers
    accounts: Accounts
    now: Callable[[], datetime]

    async def sign_in(self, provider: str, user_name: str, password: str) -> SignedIn:
        """Raises Unauthenticated, Denied (the account is right and may not come in), Unavailable (the provider is away)."""
        if not password:
            raise errors.Unauthenticated(WRONG, why="no_password")
        if provider == LOCAL:
            return await self._local(user_name, password)
        async with self._known(provider) as running:
            if not isinstance(running, PasswordProvider):
                raise errors.BadRequest(f'at "{provider}" people sign in on its own page, not with a password here')
            identity = await running.sign_in(user_name, password)
        resource = self.providers.resource(provider)
        if resource is None or not resource.spec.enabled:
            raise errors.Denied(f'the provider "{provider}" was disabled just now', why="provider_disabled")
        user = await self.accounts.sign_in(resource, identity)
        account = next((i for i in user.status.identities if i.provider == provider), None)
        truncated = account.truncated if account is not None else ""
        return SignedIn(user, provider, (truncated,) if truncated else ())

    def _known(self, provider: str) -> AbstractAsyncContextManager[Provider]:
        try:
            check_label(provider)
        except ValueError as exc:
            raise errors.BadRequest(f'"{provider[:63]}" is no provider: the name {exc}') from exc
        return self.providers.use(provider)

    async def _local(self, user_name: str, password: str) -> SignedIn:
        resource = self.providers.resource(LOCAL)
        if resource is not None and not resource.spec.enabled:
            raise errors.Denied(
                "accounts of the hub itself are disabled: sign in with another provider", why="provider_disabled"
            )
        user = await self._find(user_name)
        stored = user.private.password_hash if user is not None else ""
        right = await self.passwords.verify(stored, password)
        if user is None or not right or not user.spec.enabled or user.deleting or user.spec.service:
            # A name that nobody has may be a password, typed into the wrong field: it is not written down.
            log.get("identity").info("login_refused", user=user_name if user is not None else "", provider=LOCAL)
            raise errors.Unauthenticated(WRONG, why=_why(user, right=right))
        if self.passwords.is_outdated(stored):
            await self._store_hash(user, stored, await self.passwords.hash(password))
        return SignedIn(user, LOCAL)

    async def _find(self, name: str) -> User | None:
        try:
            return await read(self.store, User, check_label(name))
        except (ValueError, errors.NotFound):
            return None

    async def _store_hash(self, user: User, only_if: str, fresh: str) -> None:
        mutate = functools.partial(_put_hash, user.uid, only_if, fresh)
        await modify(self.store, User, user.name, mutate, now=self.now)


def _why(user: User | None, *, right: bool) -> str:
    """For the audit log alone."""
    if user is None:
        return "no_such_user"
    if user.spec.service:
        return "service_user"
    if not right:
        return "wrong_password"
    return "user_disabled"


def _put_hash(uid: str, only_if: str, fresh: str, current: User) -> bool:
    if current.uid != uid or current.private.password_hash != only_if:
        return False
    current.private.password_hash = fresh
    return True
