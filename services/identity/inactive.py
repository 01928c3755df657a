"""Disables users whom nobody has used for as long as the provider `local` says. There is one key: a look goes over all users.

One replica does it (`leads`). Never the last administrator who is a person, whoever that is by then: those who were inactive longest go first. The
reason is written at the user, and in the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.observe import log
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources import codec
from libs.common.resources.identity import Token, User
from libs.common.resources.meta import format_time
from libs.common.resources.providers import LOCAL, IdentityProvider, LocalSettings
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Store
from libs.common.store.objects import Objects, modify
from services.identity.audit.attempts import Attempts
from services.identity.inactive_rules import disable, ends_at, grace_of, last_active
from services.identity.providers.running import Providers
from services.identity.rules import find_admins
from services.identity.token_records import TokenRecords

if TYPE_CHECKING:
    from libs.common.store.informer import Change

KEY = "users"
LOOK_S = 900.0
"""The longest pause between looks, while a policy is set; a user who is due sooner is seen sooner."""
YIELD_EVERY = 500
MOST_ASKED = 200
"""Users whose tokens a preview asks for; the rest is taken for what its status says."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A user who is due, and since when nobody used it."""

    user: User
    since: datetime


class InactiveUsers:
    """`before`: what writes down what this replica knows and has not written yet. `seen` is told of a use that a user's status lacks."""

    def __init__(
        self, store: Store, users: Objects[User], providers: Providers, records: TokenRecords, grants: HasGrants, attempts: Attempts,
        now: Callable[[], datetime], leads: Callable[[], bool] = lambda: True, before: Sequence[Callable[[], Awaitable[None]]] = (),
        seen: Callable[[User, datetime], None] = lambda _user, _at: None,
    ) -> None:  # fmt: skip
        self._store = store
        self._users = users
        self._providers = providers
        self._records = records
        self._grants = grants
        self._attempts = attempts
        self._now = now
        self._leads = leads
        self._before = before
        self._seen = seen
        self._kept: set[str] = set()
        self._since: datetime | None = None

    def begin(self) -> None:
        """This replica looks from now on. Before, the hub may have been away, and nobody could be active."""
        self._since = self._now()

    async def reconcile(self, _key: str) -> Outcome:
        settings = self._providers.local_settings()
        if not self._leads():
            return DONE
        self._since = self._since or self._now()
        if not _is_set(settings):
            return DONE
        wait_s = (self._since + grace_of(settings) - self._now()).total_seconds()
        if wait_s > 0:
            return After(min(LOOK_S, wait_s))
        for write in self._before:
            await write()
        due, next_at = await self._find(settings)
        gone: set[str] = set()
        if due and not self._admins(gone):
            # What is known of roles cannot be all there is: nobody is sure to be no administrator.
            log.get("identity").warning(
                "inactive_users_left", count=len(due), reason="no person is known to be an administrator"
            )
            return After(LOOK_S)
        for idle in due:
            idle = await self._ask_tokens(idle)
            end = ends_at(idle.user, settings, idle.since)
            if end is not None and end > self._now():
                self._seen(idle.user, idle.since)
                next_at = end if next_at is None else min(next_at, end)
            elif end is None:
                continue
            elif self._is_last_admin(idle.user, gone):
                self._keep(idle.user)
            elif await self._disable(idle, settings):
                gone.add(idle.user.name)
        wait_s = LOOK_S if next_at is None else (next_at - self._now()).total_seconds()
        return After(min(LOOK_S, max(1.0, wait_s)))

    async def preview(self, settings: LocalSettings) -> list[str]:
        """Names of the users who would be disabled at once by these settings, those inactive longest first. Nothing is written."""
        due, _ = await self._find(settings)
        found: set[str] = set()
        names = []
        for number, idle in enumerate(due):
            asked = await self._ask_tokens(idle) if number < MOST_ASKED else idle
            end = ends_at(asked.user, settings, asked.since)
            if end is not None and end <= self._now() and not self._is_last_admin(idle.user, found):
                found.add(idle.user.name)
                names.append(idle.user.name)
        return names

    async def _find(self, settings: LocalSettings) -> tuple[list[Idle], datetime | None]:
        """Who is due by what their status says, and when the next one will be."""
        now, due, next_at = self._now(), list[Idle](), None
        for number, name in enumerate(self._users.names(), 1):
            user = self._users.get(name)
            if user is not None:
                since = last_active(user)
                end = ends_at(user, settings, since)
                if end is not None and end <= now:
                    due.append(Idle(user, since))
                elif end is not None:
                    next_at = end if next_at is None else min(next_at, end)
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return sorted(due, key=lambda idle: (idle.since, idle.user.name)), next_at

    async def _ask_tokens(self, idle: Idle) -> Idle:
        """With the last use of the user's tokens, which is written more finely, and was before users had a last activity."""
        record = await self._records.read(idle.user.uid, idle.user.name)
        entries = await asyncio.gather(*map(self._records.find, record.tokens))
        tokens = [codec.decode(Token, entry.value, entry.revision) for entry in entries if entry is not None]
        moments = [m for t in tokens for m in (t.status.last_used, t.metadata.creation_timestamp) if m is not None]
        return Idle(idle.user, max([idle.since, *moments]))

    def _is_last_admin(self, user: User, gone: set[str]) -> bool:
        """Whether no other person could administer the hub."""
        return self._admins(gone) == {user.name}

    def _admins(self, gone: set[str]) -> set[str]:
        """People, not machines, who are administrators; `gone`: who was disabled just now and may still count in the snapshot."""
        admins = find_admins(self._grants.current) - gone
        return {name for name in admins if (found := self._users.get(name)) is not None and not found.spec.service}

    async def _disable(self, idle: Idle, settings: LocalSettings) -> bool:
        """False when the user came back, or was changed so that it may stay, in the meantime."""
        done = False

        def mutate(current: User) -> bool:
            nonlocal done
            end = ends_at(current, settings, max(idle.since, last_active(current)))
            done = current.uid == idle.user.uid and end is not None and end <= self._now()
            if done:
                disable(current, settings, idle.since, self._now())
            return done

        try:
            await modify(self._store, User, idle.user.name, mutate, now=self._now)
        except errors.NotFound:
            return False
        if done:
            log.get("identity").info(
                "inactive_user_disabled", user=idle.user.name, inactive_since=format_time(idle.since), service=idle.user.spec.service,
                policy=settings.disable_inactive_services_after if idle.user.spec.service else settings.disable_inactive_after,
            )  # fmt: skip
            self._attempts.note(
                "disable-user", "inactive", account=idle.user.name, note=f"not used since {format_time(idle.since)}"
            )
        return done

    def _keep(self, user: User) -> None:
        if user.uid not in self._kept:
            self._kept.add(user.uid)
            log.get("identity").warning(
                "inactive_admin_kept",
                user=user.name,
                advice="the last administrator is never disabled: is there nobody else?",
            )


def keys_of_policy(change: Change) -> Iterable[str]:
    return (KEY,) if change.key == BY_MODEL[IdentityProvider].key(LOCAL) else ()


def _is_set(settings: LocalSettings) -> bool:
    return bool(settings.disable_inactive_after or settings.disable_inactive_services_after)
