"""The copy of a bucket that readers use: a cache fed by a watch, with a known revision.

Services read here instead of asking the store, wait here to read their own writes, and are told of changes. It never lets go
of much at once on the word of a single listing: not found does not mean deleted. `objects` is the typed view.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from libs.common import errors
from libs.common.observe import metrics
from libs.common.store.base import Entry, Store, Synced, Vanished
from libs.common.store.brake import Brake
from libs.common.store.keys import check_prefix

YIELD_EVERY = 500
"""Entries taken without letting other tasks run: a listing of 100,000 must not stop the process for a second."""
MAX_BACKOFF_S = 5.0


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one key. `after` None = gone; `last` is then its tombstone, with the last bytes that are known."""

    key: str
    before: Entry | None
    after: Entry | None
    last: Entry


Handler = Callable[[Change], None]
Listener = Callable[[Entry], None]


class Informer:
    """Invariant: `entries` are the live entries as of `revision`, unless a brake holds (`brake.holding`) some that a listing lacked.

    `first_listing` is the revision of the first complete listing. `revision` counts within one `epoch` (life of the bucket); after a change of epoch it starts over and old revisions mean
    nothing.
    """

    def __init__(
        self,
        store: Store,
        prefix: str = "",
        *,
        name: str = "informer",
        monotonic: Callable[[], float] = time.monotonic,
        confirm_after_s: float = 5.0,
    ) -> None:
        self.bucket = store.bucket
        self.prefix = check_prefix(prefix)
        self.name = name
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.epoch = ""
        self.synced = asyncio.Event()
        self.first_listing = 0
        self.relists = 0
        self.handler_failures = 0
        self.brake = Brake()
        self._store = store
        self._monotonic = monotonic
        self._confirm_after_s = confirm_after_s
        self._alive_at: float | None = None
        self._handlers: list[Handler] = []
        self._listing_listeners: list[Listener] = []
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._revision_gauge = metrics.informer_revision().labels(self.bucket)
        self._relist_counter = metrics.informer_relists().labels(self.bucket)
        self._log = structlog.get_logger().bind(logger="informer", bucket=self.bucket, informer=name)

    async def run(self) -> None:
        """Keep the copy current, for ever. For a TaskGroup; ends only by cancellation."""
        backoff_s = 0.1
        while True:
            try:
                await self._follow()
                pause_s, backoff_s = self._confirm_after_s, 0.1
            except errors.HerdsmanError as exc:
                self._log.warning("informer_interrupted", error=exc.message)
                pause_s, backoff_s = backoff_s, min(backoff_s * 2, MAX_BACKOFF_S)
            self._count(1)
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))

    def get(self, key: str) -> Entry | None:
        """The live entry of the copy. None says only that the copy has none: see `store.base` on deletion."""
        return self.entries.get(key)

    def subscribe(self, handler: Handler, replay: bool = True) -> Callable[[], None]:
        """Tell `handler` of every change from now on; with `replay` first of all that is here. Returns the end of it.

        Handlers are short and never wait; one that raises is logged and stays subscribed.
        """
        if replay:
            for entry in list(self.entries.values()):
                self._call(handler, Change(entry.key, None, entry, entry))
        self._handlers.append(handler)

        def unsubscribe() -> None:
            if handler in self._handlers:
                self._handlers.remove(handler)

        return unsubscribe

    def hear_listing(self, listener: Listener) -> bool:
        """Let `listener` see every entry of the first listing before its handlers do, tombstones too, in order of revision.

        A listing that is interrupted begins again from its start. False: the first listing is over, nothing will come.
        """
        if not self.synced.is_set():
            self._listing_listeners.append(listener)
        return not self.synced.is_set()

    async def wait_revision(self, revision: int, timeout_s: float = 2.0) -> None:
        """Wait until the copy has a write under its prefix that got `revision`. Raises Timeout: ask the store instead."""
        if self.revision >= revision:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (revision, next(self._order), reached))
        try:
            async with asyncio.timeout(timeout_s):
                await reached
        except TimeoutError as exc:
            raise errors.Timeout(
                f'the copy of bucket "{self.bucket}" has not reached revision {revision} in {timeout_s:g} s'
            ) from exc

    def age_s(self) -> float | None:
        """Seconds since the watch last proved that this copy is current; None before the first complete listing."""
        return None if self._alive_at is None else self._monotonic() - self._alive_at

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        """Follow one watch. Returns when the brake wants a fresh one to confirm what this one's listing lacked."""
        seen: set[str] | None = set()
        missing: set[str] = set()
        listing = taken = 0
        async with aclosing(self._store.watch(self.prefix, name=self.name)) as items:
            async for item in items:
                taken += 1
                if taken % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
                if isinstance(item, Entry):
                    if seen is not None:
                        seen.add(item.key)
                    missing.discard(item.key)
                    self._apply(item)
                elif isinstance(item, Vanished):
                    missing.add(item.key)
                else:
                    if seen is not None:
                        missing.update(self.entries.keys() - seen)
                        seen = None
                    if item.listing > listing:
                        self._count(item.listing - max(listing, 1))
                        listing = item.listing
                    if not self._close_listing(item, missing):
                        return
                    missing = set()

    def _count(self, relists: int) -> None:
        if relists:
            self.relists += relists
            self._relist_counter.inc(relists)

    def _apply(self, entry: Entry) -> None:
        before = self.entries.get(entry.key)
        self._advance(entry.revision)
        for listener in self._listing_listeners:
            listener(entry)
        if entry.deleted:
            if before is not None:
                self._drop(before, entry)
        elif before is None or before.revision != entry.revision or before.value != entry.value:
            self.entries[entry.key] = entry
            self._tell(Change(entry.key, before, entry, entry))
        self._alive_at = self._monotonic()
        self._wake()

    def _close_listing(self, synced: Synced, missing: set[str]) -> bool:
        """The watch is live again: let go of what the listing lacked, unless that is so much that another must say so too."""
        gone = {key for key in missing if key in self.entries}
        if not self.brake.release(gone, len(self.entries)):
            self._log.error(
                "relist_distrusted", missing=len(gone), kept=len(self.entries),
                advice="a listing lacked many entries that were here; they are kept until a second listing confirms it",
            )  # fmt: skip
            return False
        if self.epoch and synced.epoch != self.epoch:
            self._log.warning("bucket_recreated", epoch=synced.epoch, revision=synced.revision)
            self.revision = 0
        self.epoch = synced.epoch
        self._advance(synced.revision)
        for key in sorted(gone):
            before = self.entries[key]
            self._drop(before, Entry(key, before.value, synced.revision, deleted=True))
        self._alive_at = self._monotonic()
        if not self.synced.is_set():
            self._listing_listeners.clear()
            self.first_listing = self.revision
        self.synced.set()
        self._wake()
        return True

    def _drop(self, before: Entry, tombstone: Entry) -> None:
        del self.entries[before.key]
        last = tombstone if tombstone.value else Entry(before.key, before.value, tombstone.revision, deleted=True)
        self._tell(Change(before.key, before, None, last))

    def _advance(self, revision: int) -> None:
        if revision > self.revision:
            self.revision = revision
            self._revision_gauge.set(revision)

    def _wake(self) -> None:
        while self._waiting and (self._waiting[0][0] <= self.revision or self._waiting[0][2].done()):
            reached = heapq.heappop(self._waiting)[2]
            if not reached.done():
                reached.set_result(None)

    def _tell(self, change: Change) -> None:
        for handler in tuple(self._handlers):
            self._call(handler, change)

    def _call(self, handler: Handler, change: Change) -> None:
        try:
            handler(change)
        except Exception:  # noqa: BLE001 - a bug in one handler must not stop the others; it is logged with its trace
            self.handler_failures += 1
            self._log.exception("informer_handler_failed", key=change.key)
