"""Issuing and revoking tokens. `handlers` asks for them, `sweeper` removes those that nobody should hold any more.

The text is made here, shown once, and only its hash is stored. Each write of a token is one batch with the record of its user's tokens
(`token_records`): both or none.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from libs.common import errors
from libs.common.access.federation import is_federated
from libs.common.access.token_record import TokenFact, TokenRecord, fact_of
from libs.common.access.token_text import make_token_text
from libs.common.contracts.messages import IssuedToken
from libs.common.resources import codec
from libs.common.resources.identity import Token, TokenPrivate, TokenPurpose, TokenSpec, User
from libs.common.resources.meta import ObjectMeta
from libs.common.store.base import Put, Store
from libs.common.store.objects import encode_unique, modify
from services.identity.adoption import Adoption
from services.identity.token_records import TOKEN, TRIES, Plan, TokenRecords, pause

MOST_FEDERATED = 1000
"""Live tokens that the workloads of one service user have together: the oldest makes room, so that a burst of jobs keeps nobody out."""
SIGN_INS: tuple[TokenPurpose, ...] = ("login", "session")
"""What a person gets for signing in; everything else is made from one of these."""


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
    """Invariant: at most `per_user` live tokens per user, and `most_federated` of workloads, each with an expiry, each named by its user's record.

    `on_issued` is told of each user who was given one here.
    """

    def __init__(
        self, store: Store, now: Callable[[], datetime], lifetimes: Lifetimes, per_user: int = 100,
        most_federated: int = MOST_FEDERATED,
    ) -> None:  # fmt: skip
        self.records = TokenRecords(store)
        self.adoption = Adoption(store, self.records, now)
        self.on_issued: list[Callable[[User], None]] = []
        self._store = store
        self._now = now
        self._lifetimes = lifetimes
        self._per_user = per_user
        self._most_federated = most_federated
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def issue(
        self, user: User, purpose: TokenPurpose, *, description: str = "", clusters: tuple[str, ...] = (),
        projects: tuple[str, ...] = (), read_only: bool = False, ttl_s: int | None = None,
        parent_expiry: datetime | None = None, provider: str = "", parent: str = "", client_address: str = "",
        provider_session: str = "",
    ) -> IssuedToken:  # fmt: skip
        """Make, store and return a token; the only time that its secret is seen. Raises TooManyRequests at the cap.

        `provider_session`: digest of the session at the provider that it comes from.
        """
        now = self._now()
        expires_at = self._lifetimes.expiry(purpose, now, ttl_s, parent_expiry)
        spec = TokenSpec(
            user=user.name, user_uid=user.uid, purpose=purpose, description=description, clusters=list(clusters),
            projects=list(projects), read_only=read_only, provider=provider, parent=parent,
            client_address=client_address[:64], expires_at=expires_at,
        )  # fmt: skip
        lock = self._locks[user.uid]
        try:
            async with lock:
                issued = await self._create(user, spec, now, provider_session)
        finally:
            if not lock.locked():
                self._locks.pop(user.uid, None)
        for told in self.on_issued:
            told(user)
        return issued

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
        """Delete a token and those made with it. Returns whether it was there; a token that is gone is as revoked as can be."""
        entry = await self.records.find(name)
        if entry is None:
            return False
        token = codec.decode(Token, entry.value, entry.revision)
        return await self.records.remove(token.spec.user_uid, lambda _record: [name]) > 0

    async def forget(self, token: Token) -> None:
        """It was deleted by the API: take it out of its record, and what was made with it with it."""
        await self.records.remove(token.spec.user_uid, lambda _record: [token.name])

    async def revoke_all(
        self,
        uid: str,
        *,
        keep: str = "",
        purposes: tuple[TokenPurpose, ...] = (),
        provider: str = "",
        session: str = "",
    ) -> int:
        """Delete a user's tokens (all, or those that `choose` says) but the one to keep. Returns how many there were.

        Those too that are in no record yet: it looks for such ones first.
        """
        await self.adoption.catch_up()
        return await self.records.remove(uid, choose(keep=keep, purposes=purposes, provider=provider, session=session))

    async def revoke_of_provider(self, provider: str) -> int:
        """Delete all tokens that came from a sign-in at one provider, whoever has them. Returns how many there were."""
        await self.adoption.catch_up()
        chosen, removed = choose(provider=provider), 0
        async with aclosing(self.records.all()) as records:
            async for record in records:
                if chosen(record):
                    removed += await self.records.remove(record.uid, chosen)
        return removed

    async def _create(self, user: User, spec: TokenSpec, now: datetime, provider_session: str) -> IssuedToken:
        for failed in range(1, TRIES + 1):
            record = await self.records.read(user.uid, user.name)
            plan = await self._make_room(record, spec, now)
            text = make_token_text()
            token = Token(
                metadata=ObjectMeta(name=text.name, uid=str(uuid4()), creation_timestamp=now, generation=1),
                spec=spec,
                private=TokenPrivate(secret_hash=text.secret_hash, provider_session=provider_session),
            )
            create = Put(TOKEN.key(text.name), encode_unique(token), 0)
            try:
                await self.records.write(Plan(record, {**plan.tokens, text.name: fact_of(token)}, (create, *plan.puts)))
            except errors.Conflict:
                # Another token of this user came or went, or 50 random bits met a token that exists.
                await pause(failed)
                continue
            return IssuedToken(token=text.reveal(), name=text.name, user=user.name, expires_at=spec.expires_at)
        raise errors.Conflict(f'tokens of user "{user.name}" come and go too fast at the moment: try again')

    async def _make_room(self, record: TokenRecord, spec: TokenSpec, now: datetime) -> Plan:
        """Keep under the cap: expired ones go first; to sign in, the oldest sign-in makes room; else it is refused.

        What came by a workload's token is counted apart, and there the oldest always makes room.
        """
        federated = is_federated(spec.provider)
        most = self._most_federated if federated else self._per_user
        counted = {name: fact for name, fact in record.tokens.items() if is_federated(fact.provider) is federated}
        if len(counted) < most:
            return Plan(record, record.tokens)
        moment = now.timestamp()
        over = [name for name, fact in counted.items() if fact.expires <= moment]
        plan = await self.records.plan_removal(record, over, lambda token: token.spec.expires_at > now)
        # A session that is used lives on beyond what its fact says: it counts as long as nobody looked.
        live = {
            name: fact for name, fact in plan.tokens.items()
            if name in counted and (fact.expires > moment or fact.purpose == "session")
        }  # fmt: skip
        if len(live) < most:
            return plan
        if federated:
            oldest = min(live, key=lambda name: (live[name].expires, name))
        else:
            logins = {name: fact for name, fact in live.items() if fact.purpose in SIGN_INS}
            if spec.purpose not in SIGN_INS or not logins:
                raise errors.TooManyRequests(
                    f'user "{record.user}" has {len(live)} live tokens, and {most} are allowed: revoke some that are not needed',
                    why="too_many_tokens",
                )
            oldest = await self._oldest(logins)
        return await self.records.plan_removal(
            record, [oldest, *over], lambda token: token.name != oldest and token.spec.expires_at > now
        )

    async def _oldest(self, logins: Mapping[str, TokenFact]) -> str:
        """The sign-in that ends first. Sessions that are used end later than their record says."""
        expires = {name: fact.expires for name, fact in logins.items()}
        sessions = [name for name, fact in logins.items() if fact.purpose == "session"]
        for name, entry in zip(sessions, await asyncio.gather(*map(self.records.find, sessions)), strict=True):
            expires[name] = 0 if entry is None else fact_of(codec.decode(Token, entry.value, entry.revision)).expires
        return min(expires, key=lambda name: (expires[name], name))


def choose(
    *, keep: str = "", purposes: tuple[TokenPurpose, ...] = (), provider: str = "", session: str = ""
) -> Callable[[TokenRecord], list[str]]:
    """The names in a record of all tokens, or those of some purposes, or of one provider, but for the one to keep.

    `session`: of one session at the provider (by its digest), or of none that is known, which may be that one.
    """

    def chosen(record: TokenRecord) -> list[str]:
        return [
            name for name, fact in record.tokens.items()
            if name != keep and (not purposes or fact.purpose in purposes) and provider in ("", fact.provider)
            and (not session or fact.session in ("", session))
        ]  # fmt: skip

    return chosen
