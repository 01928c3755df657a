"""Removes tokens that nobody should hold any more: expired ones, those of users that are gone or were made again, and those whose
parent is gone.

Looks through the records at intervals; keys are users' uids. It is a matter of tidiness, not of safety: the front door refuses such
tokens by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.access.token_record import TokenRecord
from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources import codec
from libs.common.resources.identity import Token, User
from libs.common.resources.meta import check_label
from libs.common.store.base import Store
from libs.common.store.objects import Objects, read
from services.identity.audit.attempts import Attempts
from services.identity.token_records import TokenRecords

if TYPE_CHECKING:
    from libs.common.store.informer import Change

EVERY_S = 300.0
KEEP_EXPIRED = timedelta(seconds=60)
"""Expired tokens stay a moment, so that an answer can still say `expired` and not `unknown`."""


class TokenSweeper:
    """One user's record at a time."""

    def __init__(
        self, store: Store, records: TokenRecords, users: Objects[User], now: Callable[[], datetime], attempts: Attempts
    ) -> None:  # fmt: skip
        self._store = store
        self._records = records
        self._users = users
        self._now = now
        self._attempts = attempts

    async def run(self, add: Callable[[str], None]) -> None:
        """Look through all records now and again, for ever; `add` is told the uid of each that has something to tidy."""
        while True:
            try:
                await self.look(add)
            except errors.HerdsmanError as exc:
                log.get("identity").warning("token_records_not_looked_through", error=exc.message)
            await asyncio.sleep(EVERY_S)

    async def look(self, add: Callable[[str], None]) -> None:
        """Once through all records. Raises Unavailable."""
        async with aclosing(self._records.all()) as records:
            async for record in records:
                user = self._users.get(record.user)
                if user is None or user.uid != record.uid or self._expired(record) or _orphans(record):
                    add(record.uid)

    async def reconcile(self, uid: str) -> Outcome:
        record = await self._records.read(uid)
        if not record.tokens:
            return DONE
        if not await self._has_owner(record):
            self._tell(record, "user_gone", await self._records.remove(uid, lambda record: record.tokens))
            return DONE
        self._tell(record, "expired", await self._records.remove(uid, self._expired, unless=self._is_alive))
        for parent in {record.tokens[name].parent for name in _orphans(record)}:
            if await self._records.find(parent) is None:
                self._tell(record, "parent_gone", await self._records.remove(uid, partial(_made_with, parent)))
        return DONE

    def _tell(self, record: TokenRecord, reason: str, removed: int) -> None:
        if removed:
            self._attempts.note("expire-token", reason, account=record.user, note=f"{removed} tokens removed")

    def _expired(self, record: TokenRecord) -> list[str]:
        """What its record says has expired; a session that was used has not."""
        moment = (self._now() - KEEP_EXPIRED).timestamp()
        return [name for name, fact in record.tokens.items() if fact.expires <= moment]

    def _is_alive(self, token: Token) -> bool:
        return token.spec.expires_at > self._now() - KEEP_EXPIRED

    async def _has_owner(self, record: TokenRecord) -> bool:
        """Asks the store itself: a copy that is behind must not cost anybody their tokens."""
        try:
            user = await read(self._store, User, check_label(record.user))
        except (errors.NotFound, ValueError):
            return False
        return user.uid == record.uid


def keys_of_user(change: Change) -> Iterable[str]:
    """The uid of a user that is gone; a user may go and come again between two looks."""
    if change.before is None:
        return ()
    before, after = (
        None if entry is None else codec.decode(User, entry.value, entry.revision).uid
        for entry in (change.before, change.after)
    )
    return () if before == after or before is None else (before,)


def _orphans(record: TokenRecord) -> list[str]:
    """Tokens that were made with one that the record does not name: it is gone, or of an older version and soon named."""
    return [name for name, fact in record.tokens.items() if fact.parent and fact.parent not in record.tokens]


def _made_with(parent: str, record: TokenRecord) -> list[str]:
    return [name for name, fact in record.tokens.items() if fact.parent == parent]
