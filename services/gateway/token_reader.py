"""Tokens as the API shows them, read from the store when somebody asks: those of a user by the record of that user, others one user
after the other.

Lists are in order of user and name; a page goes on behind a position of that order, so nothing comes twice and nothing is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.access.principal import Principal
from libs.common.access.token_record import read_progress, read_record
from libs.common.apiserver.selectors import Selectors
from libs.common.resources import codec
from libs.common.resources.meta import check_name
from libs.common.resources.registry import BY_PLURAL
from libs.common.store.base import Entry, Store

TOKENS = BY_PLURAL["tokens"]
READS_AT_ONCE = 32
Position = tuple[str, str]
"""User and name. Tokens that a role names come last, under a user that nobody is called like."""
NAMED = "~"


class TokenReader:
    """Reads the store's leader, so an answer is never older than a write that was acknowledged before."""

    def __init__(self, store: Store, grants: HasGrants) -> None:
        self._store = store
        self._grants = grants
        self._complete = False

    async def find(self, name: str) -> Entry | None:
        """The token of this name."""
        try:
            return await self._store.get(TOKENS.key(check_name(name)))
        except (errors.NotFound, ValueError):
            return None

    async def document(self, name: str) -> dict[str, Any] | None:
        entry = await self.find(name)
        return None if entry is None else codec.decode_document(entry.value, entry.revision)

    async def is_complete(self) -> bool:
        """Whether records name all tokens. Not before identity has looked through what an older version left."""
        if not self._complete:
            self._complete = await read_progress(self._store) is not None
        return self._complete

    async def walk(
        self, principal: Principal, verb: str, selectors: Selectors, after: Position = ("", "")
    ) -> AsyncGenerator[tuple[Position, Entry], None]:
        """Every token that the caller may see and the selectors may match, and perhaps others: whoever shows them filters.

        With records that are not complete yet it is all tokens, in no order; `after` is nothing then.
        """
        exact = selectors.exact_name
        if exact is not None:
            entry = await self.find(exact)
            if entry is not None and after < (NAMED, exact):
                yield (NAMED, exact), entry
            return
        if not await self.is_complete():
            async with aclosing(self._store.scan(TOKENS.plural)) as entries:
                async for entry in entries:
                    if not entry.deleted:
                        yield (NAMED, ""), entry
            return
        named = self._grants.current.names(principal, verb, TOKENS.plural)
        own = {principal.user: principal.user_uid}
        users = own if named is not None else {name: fact.uid for name, fact in self._grants.current.users.items()}
        of = selectors.exact("spec.user")
        wanted = sorted(user for user in users if user >= after[0] and of in (None, user))
        for some in _chunks(wanted):
            for record in await asyncio.gather(*(read_record(self._store, users[user], user) for user in some)):
                names = sorted(name for name in record.tokens if (record.user, name) > after)
                for some_names in _chunks(names):
                    for entry in await self._get(some_names):
                        yield (record.user, entry.key.partition(".")[2]), entry
        if named:
            later = sorted(name for name in named if (NAMED, name) > after)
            for entry in await self._get(later):
                if codec.decode_document(entry.value, entry.revision)["spec"].get("userUid") != principal.user_uid:
                    yield (NAMED, entry.key.partition(".")[2]), entry

    async def entries(self, principal: Principal, verb: str, selectors: Selectors) -> AsyncGenerator[Entry, None]:
        """As `walk`, all of it."""
        async with aclosing(self.walk(principal, verb, selectors)) as found:
            async for _position, entry in found:
                yield entry

    async def _get(self, names: Sequence[str]) -> list[Entry]:
        """Those that are there."""
        found = await asyncio.gather(*map(self.find, names))
        return [entry for entry in found if entry is not None]


def _chunks(names: Iterable[str]) -> Iterable[list[str]]:
    rest = iter(names)
    while some := list(islice(rest, READS_AT_ONCE)):
        yield some
