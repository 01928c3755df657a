"""Issuing and revoking tokens. `handlers` asks for them, `reconciler` removes those that nobody should hold any more.

The text is made here, shown once, and only its hash is stored.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from libs.common import errors
from libs.common.access.token_text import make_token_text
from libs.common.contracts.messages import IssuedToken
from libs.common.resources import codec
from libs.common.resources.identity import Token, TokenPrivate, TokenPurpose, TokenSpec, User
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Store
from libs.common.store.objects import encode_last, encode_unique, modify
from services.identity.token_index import TokenIndex

SIGN_INS: tuple[TokenPurpose, ...] = ("login", "session")
"""What a person gets for signing in; everything else is made from one of these."""
TOKEN = BY_MODEL[Token]
_NAME_TRIES = 5


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The longest life of a token by purpose, in seconds; also the one it gets when none is asked for."""

    login_s: int = 16 * 3600
    kubeconfig_s: int = 30 * 86400
    api_s: int = 90 * 86400
    exec_s: int = 3600
    federated_s: int = 3600
    session_s: int = 12 * 3600
    session_idle_s: int = 2 * 3600
    """A session ends when it was not used for so long: its expiry moves with its use."""

    def expiry(self, purpose: TokenPurpose, now: datetime, ttl_s: int | None, parent: datetime | None) -> datetime:
        """When it expires: what was asked for, cut to the longest, and never after the token that asked for it."""
        longest = {
            "login": self.login_s, "session": min(self.session_idle_s, self.session_s), "exec": self.exec_s, "kubeconfig": self.kubeconfig_s,
            "api": self.api_s, "federated": self.federated_s,
        }[purpose]  # fmt: skip
        if ttl_s is not None and ttl_s <= 0:
            raise errors.Invalid(
                "the life of a token must be longer than 0 s", causes=[errors.Cause("ttlS", "must be positive")]
            )
        moment = (now + timedelta(seconds=min(ttl_s or longest, longest))).replace(microsecond=0)
        return moment if parent is None else min(moment, parent)


class Tokens:
    """Invariant: at most `per_user` live tokens per user (within this replica's knowledge), each with an expiry."""

    def __init__(
        self, store: Store, index: TokenIndex, now: Callable[[], datetime], lifetimes: Lifetimes, per_user: int = 100
    ) -> None:
        self._store = store
        self._index = index
        self._now = now
        self._lifetimes = lifetimes
        self._per_user = per_user
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def issue(
        self, user: User, purpose: TokenPurpose, *, description: str = "", clusters: tuple[str, ...] = (),
        projects: tuple[str, ...] = (), read_only: bool = False, ttl_s: int | None = None,
        parent_expiry: datetime | None = None, provider: str = "", parent: str = "", client_address: str = "",
    ) -> IssuedToken:  # fmt: skip
        """Make, store and return a token; the only time that its secret is seen. Raises TooManyRequests at the cap."""
        now = self._now()
        expires_at = self._lifetimes.expiry(purpose, now, ttl_s, parent_expiry)
        spec = TokenSpec(
            user=user.name, user_uid=user.uid, purpose=purpose, description=description, clusters=list(clusters),
            projects=list(projects), read_only=read_only, provider=provider, parent=parent,
            client_address=client_address[:64], expires_at=expires_at,
        )  # fmt: skip
        lock = self._locks[user.name]
        try:
            async with lock:
                await self._make_room(user, purpose, now)
                return await self._create(user, spec, now)
        finally:
            if not lock.locked():
                self._locks.pop(user.name, None)

    async def extend(self, name: str) -> tuple[datetime, datetime]:
        """A session that was used goes on. Returns when it ends if it is not used again, and when in any case. Raises NotFound, BadRequest."""
        now, times = self._now(), self._lifetimes

        def end_of(token: Token) -> datetime:
            return (token.metadata.creation_timestamp or now) + timedelta(seconds=times.session_s)

        def mutate(token: Token) -> bool:
            if token.spec.purpose != "session":
                raise errors.BadRequest("only a browser's session goes on by being used")
            later = min(now.replace(microsecond=0) + timedelta(seconds=times.session_idle_s), end_of(token))
            if token.spec.expires_at <= now or later <= token.spec.expires_at:
                return False
            token.spec.expires_at = later
            return True

        stored = await modify(self._store, Token, name, mutate, now=self._now)
        return stored.spec.expires_at, end_of(stored)

    async def revoke(self, name: str) -> bool:
        """Delete a token. Returns whether it was there; a token that is gone is as revoked as can be."""
        key = TOKEN.key(name)
        for _ in range(_NAME_TRIES):
            try:
                entry = await self._store.get(key)
                token = codec.decode(Token, entry.value, entry.revision)
                await self._store.delete(key, encode_last(token), entry.revision)
            except errors.NotFound:
                return False
            except errors.Conflict:
                continue
            self._index.note_removed(token.spec.user, name)
            return True
        raise errors.Conflict("the token changes faster than it can be deleted: try again", name=name, kind="Token")

    async def revoke_all(
        self, user: str, *, keep: str = "", purposes: tuple[TokenPurpose, ...] = (), provider: str = ""
    ) -> int:
        """Delete a user's tokens (all, or those of some purposes, or of one provider) but the one to keep. Returns how many were there."""
        names = [
            f.name for f in self._index.of(user)
            if f.name != keep and (not purposes or f.purpose in purposes) and provider in ("", f.provider)
        ]  # fmt: skip
        return sum([await self.revoke(name) for name in names])

    async def _create(self, user: User, spec: TokenSpec, now: datetime) -> IssuedToken:
        for _ in range(_NAME_TRIES):
            text = make_token_text()
            token = Token(
                metadata=ObjectMeta(name=text.name, uid=str(uuid4()), creation_timestamp=now, generation=1),
                spec=spec,
                private=TokenPrivate(secret_hash=text.secret_hash),
            )
            try:
                await self._store.create(TOKEN.key(text.name), encode_unique(token))
            except errors.AlreadyExists:
                continue  # 50 random bits met a token that exists
            self._index.note_added(token)
            return IssuedToken(
                token=text.reveal(), name=text.name, user=user.name, expires_at=spec.expires_at,
                must_change_password=user.status.must_change_password,
            )  # fmt: skip
        raise errors.Internal("no free token name was found")

    async def _make_room(self, user: User, purpose: TokenPurpose, now: datetime) -> None:
        """Keep under the cap: expired ones go first; to sign in, the oldest sign-in makes room; else it is refused."""
        facts = self._index.of(user.name)
        if len(facts) < self._per_user:
            return
        live = []
        for fact in facts:
            if fact.expires_at <= now:
                await self.revoke(fact.name)
            else:
                live.append(fact)
        if len(live) < self._per_user:
            return
        logins = [fact for fact in live if fact.purpose in SIGN_INS]
        if purpose not in SIGN_INS or not logins:
            raise errors.TooManyRequests(
                f'user "{user.name}" has {len(live)} live tokens, and {self._per_user} are allowed: revoke some that are not needed'
            )
        await self.revoke(min(logins, key=lambda fact: (fact.expires_at, fact.name)).name)
