"""The records of who has which tokens (`libs.common.access.token_record`), and the one way to change them: in a batch with the tokens.

A record is compared and set, so of two writes for one user one comes after the other, on whatever replica: that makes the cap exact.
`tokens` issues and revokes with it, `sweeper` tidies, `adoption` adds what older versions made without a record.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace

from libs.common import errors
from libs.common.access.token_record import (
    RECORDS,
    TokenFact,
    TokenRecord,
    decode_record,
    encode_record,
    fact_of,
    read_record,
)
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.identity import Token
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Entry, Put, Store
from libs.common.store.objects import encode_last

TOKEN = BY_MODEL[Token]
AT_ONCE = 100
"""Tokens that one batch deletes."""
TRIES = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of a record: the facts that it then has, and the writes of tokens that go with that."""

    record: TokenRecord
    tokens: Mapping[str, TokenFact]
    puts: tuple[Put, ...] = ()


class TokenRecords:
    """Stateless; all records are in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, uid: str, user: str = "") -> TokenRecord:
        """The record from the store itself; an empty one where there is none."""
        return await read_record(self._store, uid, user)

    async def all(self) -> AsyncGenerator[TokenRecord, None]:
        """Every record, once through; one that changes meanwhile may come again."""
        async with aclosing(self._store.scan(RECORDS)) as entries:
            async for entry in entries:
                if entry.deleted:
                    continue
                try:
                    yield decode_record(entry)
                except errors.Internal as exc:
                    log.get("identity").error("token_record_unreadable", key=entry.key, error=exc.message)

    async def write(self, plan: Plan) -> None:
        """All of it or nothing. Raises Conflict when the record or one of the tokens was written since it was read."""
        puts = list(plan.puts)
        if plan.tokens != plan.record.tokens:
            puts.append(self._put(plan.record, plan.tokens))
        if len(puts) == 1:
            await self._write_one(puts[0])
        elif puts:
            await self._store.batch(puts)

    async def plan_removal(
        self, record: TokenRecord, names: Iterable[str], unless: Callable[[Token], bool] = lambda _token: False
    ) -> Plan:
        """Delete these tokens and those that were made with them, `AT_ONCE` of them at most.

        Of the named ones those stay for which `unless` holds, with what their record says put right.
        """
        left, puts = dict(record.tokens), list[Put]()
        wanted, looked_at, judged = list(dict.fromkeys(names)), set[str](), True
        while wanted and len(looked_at) < AT_ONCE:
            wanted = wanted[: AT_ONCE - len(looked_at)]
            looked_at.update(wanted)
            gone = set()
            for name, entry in zip(wanted, await asyncio.gather(*map(self.find, wanted)), strict=True):
                token = None if entry is None else codec.decode(Token, entry.value, entry.revision)
                if token is not None and judged and unless(token):
                    left[name] = fact_of(token)
                    continue
                left.pop(name, None)
                gone.add(name)
                if entry is not None and token is not None:
                    puts.append(Put(entry.key, encode_last(token), entry.revision, deleted=True))
            wanted = [n for n, fact in record.tokens.items() if fact.parent in gone and n not in looked_at]
            judged = False
        return Plan(record, left, tuple(puts))

    async def remove(
        self,
        uid: str,
        choose: Callable[[TokenRecord], Iterable[str]],
        unless: Callable[[Token], bool] = lambda _token: False,
    ) -> int:
        """Delete the tokens that `choose` names in the record of the moment, batch after batch. Returns how many there were.

        Names whose token is gone, or that are in no record, do no harm. Raises Conflict when others write all the time.
        """
        removed = failed = 0
        while True:
            record = await self.read(uid)
            plan = await self.plan_removal(record, choose(record), unless)
            if not plan.puts and plan.tokens == record.tokens:
                return removed
            try:
                await self.write(plan)
            except errors.Conflict as exc:
                failed += 1
                if failed == TRIES:
                    raise errors.Conflict("these tokens change faster than they can be deleted: try again") from exc
                await pause(failed)
                continue
            failed = 0
            removed += len(plan.puts)

    async def add(self, uid: str, user: str, found: Mapping[str, TokenFact]) -> None:
        """Name these tokens in the record, too."""
        for failed in range(1, TRIES + 1):
            record = replace(await self.read(uid), user=user)
            try:
                return await self.write(Plan(record, {**found, **record.tokens}))
            except errors.Conflict:
                await pause(failed)
        raise errors.Conflict("the record of a user's tokens changes faster than it can be written: try again")

    async def find(self, name: str) -> Entry | None:
        """The token's entry from the store itself."""
        try:
            return await self._store.get(TOKEN.key(name))
        except (errors.NotFound, ValueError):
            return None

    async def _write_one(self, put: Put) -> None:
        """As a batch of one, for a fraction of its time: a server that has no replica lays out files for every batch."""
        if put.deleted:
            await self._store.delete(put.key, put.value, put.revision or 0)
        elif put.revision:
            await self._store.update(put.key, put.value, put.revision)
        else:
            try:
                await self._store.create(put.key, put.value)
            except errors.AlreadyExists as exc:
                raise errors.Conflict(f'"{put.key}" was made by somebody else') from exc

    @staticmethod
    def _put(record: TokenRecord, tokens: Mapping[str, TokenFact]) -> Put:
        return Put(record.key, encode_record(record.user, tokens), record.revision, deleted=not tokens)


async def pause(failed: int) -> None:
    """Before the next try after the `failed`-th conflict."""
    await asyncio.sleep(random.uniform(0, 0.005 * 2**failed))
