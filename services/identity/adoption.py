"""Puts records right where a write of a token did not: tokens of versions that knew no records, and deletes by the API that were cut short.

Reads through what was written of tokens since the last time, and writes down how far it came. Once in a bucket's life that is all of
them; later it is what happened in a minute. Nothing waits for it but those who must not miss a token (`Tokens.revoke_all`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from libs.common import errors
from libs.common.access.token_record import PROGRESS, Progress, TokenFact, encode_progress, fact_of, read_progress
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.identity import Token
from libs.common.store.base import Entry, Store
from services.identity.token_records import TOKEN, TokenRecords

EVERY_S = 60.0
PAGE = 20_000
"""Tokens held at a time; the more, the fewer writes of records there are in the first reading."""
RECORDS_AT_ONCE = 8
SKEW = timedelta(minutes=10)
"""Clocks of replicas differ, and a write may take a while from the moment that it names as its token's creation."""
_NEVER = Progress(0, datetime(1970, 1, 1, tzinfo=UTC))

Found = dict[tuple[str, str], dict[str, TokenFact | None]]
"""(uid, user) → token → its fact, or None when it was deleted."""


class Adoption:
    """Invariant: after `catch_up`, every token that was in the store when it was called is in its user's record, or gone."""

    def __init__(self, store: Store, records: TokenRecords, now: Callable[[], datetime], *, page: int = PAGE) -> None:
        self._store = store
        self._records = records
        self._now = now
        self._page = page
        self._lock = asyncio.Lock()
        self._log = log.get("identity")

    async def run(self) -> None:
        """Catch up again and again, for ever."""
        while True:
            try:
                await self.catch_up()
            except errors.HerdsmanError as exc:
                self._log.warning("tokens_not_looked_through", error=exc.message)
            await asyncio.sleep(EVERY_S)

    async def catch_up(self) -> None:
        """Read what was written since the last time. Raises Unavailable, Timeout, Conflict."""
        async with self._lock:
            before, began = await read_progress(self._store), self._now()
            since = before or _NEVER
            last, adopted = since.revision, 0
            found: Found = defaultdict(dict)
            held = 0
            async with aclosing(self._store.scan(TOKEN.plural, after=since.revision)) as entries:
                async for entry in entries:
                    last = entry.revision
                    held += self._note(entry, since.began - SKEW, found)
                    if held >= self._page:
                        adopted += await self._settle(found)
                        found, held = defaultdict(dict), 0
            adopted += await self._settle(found)
            if before is None or last > since.revision:
                await self._write(Progress(last, began, since.entry_revision))
            if adopted:
                self._log.info("tokens_adopted", count=adopted, revision=last)

    @staticmethod
    def _note(entry: Entry, since: datetime, found: Found) -> int:
        """Remember the token, unless it is in its record already. Returns how many that were."""
        if not entry.value:
            return 0
        try:
            token = codec.decode(Token, entry.value, entry.revision)
        except (errors.Internal, ValueError, KeyError, TypeError):
            log.get("identity").error("token_unreadable", key=entry.key)
            return 0
        made = token.metadata.creation_timestamp
        if not entry.deleted and made is not None and made < since:
            # It was there the last time: this is a use of it that was written down, or a session that goes on.
            return 0
        found[token.spec.user_uid, token.spec.user][token.name] = None if entry.deleted else fact_of(token)
        return 1

    async def _settle(self, found: Found) -> int:
        """Returns how many tokens no record named."""
        adopted, users = 0, list(found.items())
        for start in range(0, len(users), RECORDS_AT_ONCE):
            settled = await asyncio.gather(
                *(self._settle_user(*who, tokens) for who, tokens in users[start : start + RECORDS_AT_ONCE]),
                return_exceptions=True,
            )
            for outcome in settled:
                if isinstance(outcome, BaseException):
                    raise outcome
                adopted += outcome
        return adopted

    async def _settle_user(self, uid: str, user: str, tokens: dict[str, TokenFact | None]) -> int:
        record = await self._records.read(uid, user)
        gone = {name for name, fact in tokens.items() if fact is None}
        parents = {fact.parent for fact in record.tokens.values()}
        if gone & (record.tokens.keys() | parents):
            await self._records.remove(uid, lambda _record: gone)
        missing = {n: fact for n, fact in tokens.items() if fact is not None and n not in record.tokens}
        if missing:
            await self._records.add(uid, user, missing)
        return len(missing)

    async def _write(self, progress: Progress) -> None:
        value = encode_progress(progress)
        try:
            if progress.entry_revision:
                await self._store.update(PROGRESS, value, progress.entry_revision)
            else:
                await self._store.create(PROGRESS, value)
        except (errors.Conflict, errors.AlreadyExists):
            return  # another replica came as far
