"""What changes in tokens, without a copy of them: the source of their watches, and of the word that a token is gone.

A follower of `Store.changes` in the shape of an informer, so that `WatchCache` keeps the newest changes as of every other kind; its
`entries` stay empty. `token_reader` has the tokens themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager

from libs.common import errors
from libs.common.resources import codec
from libs.common.resources.registry import BY_PLURAL
from libs.common.store.base import Entry, Store, Synced
from libs.common.store.informer import Change, Informer

TOKENS = BY_PLURAL["tokens"]


class TokenFeed(Informer):
    """Invariant: since the last gap every write was told to the subscribers; `gaps` are told of each gap, with the revision after which all is told."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, TOKENS.plural, name="gateway-tokens")
        self.gaps: list[Callable[[int], None]] = []
        self.ended: list[Callable[[], None]] = []
        """Told when a token that somebody follows is gone."""
        self._followed: Counter[str] = Counter()
        self._gone: set[str] = set()

    @contextmanager
    def following(self, name: str) -> Iterator[Callable[[], bool]]:
        """Look after the token of an open stream: what is given says whether it was deleted. No name: it never is."""
        self._followed[name] += 1
        try:
            yield lambda: name in self._gone
        finally:
            self._followed[name] -= 1
            if not self._followed[name]:
                del self._followed[name]
                self._gone.discard(name)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        listing = 0
        async with aclosing(self._store.changes(self.prefix, name=self.name)) as items:
            async for item in items:
                self._alive_at = self._monotonic()
                if isinstance(item, Entry):
                    await self._told(item)
                elif item.listing != listing:
                    await self._begin(item)
                    listing = item.listing
                else:
                    self._advance(item.revision)
                self._wake()

    async def _begin(self, synced: Synced) -> None:
        """From here on everything is told; what was missed since the last time is not known."""
        if self.epoch and synced.epoch != self.epoch:
            self.revision = 0
        self.epoch = synced.epoch
        self._advance(synced.revision)
        if not self.synced.is_set():
            self.first_listing = self.revision
            self.synced.set()
            return
        self._cut()
        for name in [name for name in self._followed if name]:
            try:
                await self._store.get(TOKENS.key(name))
            except errors.NotFound:
                self._end(name)

    async def _told(self, entry: Entry) -> None:
        self._advance(entry.revision)
        name = entry.key.partition(".")[2]
        if entry.deleted and name in self._followed:
            self._end(name)
        try:
            before = _before(entry)
        except (errors.Internal, KeyError, TypeError):
            # Nobody can say what this was, nor who may see it.
            self._log.error("token_unreadable", key=entry.key)
            self._cut()
            return
        self._tell(Change(entry.key, before, None if entry.deleted else entry, entry))

    def _cut(self) -> None:
        for told in self.gaps:
            told(self.revision)

    def _end(self, name: str) -> None:
        self._gone.add(name)
        for told in self.ended:
            told()


def _before(entry: Entry) -> Entry | None:
    """What stands for the entry before this write. Who may see a token and what selects it never changes, so it is this one; None: it is new."""
    document = codec.decode_document(entry.value, entry.revision)
    is_new = document["metadata"].get("generation", 1) == 1 and not document.get("status", {}).get("lastUsed")
    return None if is_new and not entry.deleted else entry
