"""The store's double: one bucket in this process, for hermetic tests of everything that is built on a store.

It keeps the same promises (`tests/store/conformance.py` runs on it). What it does not imitate: durability, refusals for want
of room, lost answers, and the time a server takes. `interrupt` and `compact` do to its watches what a restarted server
and seven days do to real ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from libs.common import errors
from libs.common.store.base import Entry, Put, Synced, Vanished, WatchItem
from libs.common.store.keys import check_batch, check_key, check_prefix, is_below

SIGN_OF_LIFE_S = 2.0
MAX_BACKLOG = 10_000
"""A watch that is further behind lists again, as a slow consumer of the real server does."""


class _Watcher:
    """What one open watch has not yielded yet."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.backlog: deque[Entry] = deque()
        self.interrupted = False
        self.wake = asyncio.Event()

    def offer(self, entry: Entry) -> None:
        if not is_below(self.prefix, entry.key):
            return
        self.backlog.append(entry)
        if len(self.backlog) > MAX_BACKLOG:
            self.interrupted = True
        self.wake.set()

    def begin_listing(self) -> None:
        self.backlog.clear()
        self.interrupted = False


class MemoryStore:
    """Implements `store.base.Store`. All state changes happen between awaits, so each write is atomic."""

    def __init__(self, bucket: str) -> None:
        self.bucket = bucket
        self._last: dict[str, Entry] = {}
        self._revision = 0
        self._life = 1
        self._watchers: set[_Watcher] = set()
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    async def get(self, key: str) -> Entry:
        entry = self._last.get(check_key(key))
        if entry is None or entry.deleted:
            raise errors.NotFound(f'"{key}" not found in bucket "{self.bucket}"', name=key)
        return entry

    async def create(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        if self._live_revision(check_key(key)):
            raise errors.AlreadyExists(f'"{key}" already exists in bucket "{self.bucket}"', name=key)
        return self._write(Entry(key, value, 0), ttl_s)

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int:
        self._check_revision(check_key(key), revision)
        return self._write(Entry(key, value, 0), ttl_s)

    async def delete(self, key: str, last: bytes, revision: int) -> int:
        self._check_revision(check_key(key), revision)
        return self._write(Entry(key, last, 0, deleted=True), None)

    async def batch(self, writes: Sequence[Put]) -> int:
        check_batch(writes)
        for put in writes:
            if put.revision is not None and self._live_revision(put.key) != put.revision:
                raise errors.Conflict(f'"{put.key}" was changed by somebody else', name=put.key)
        for put in writes:
            self._write(Entry(put.key, put.value, 0, put.deleted), None)
        return self._revision

    async def watch(self, prefix: str = "", *, name: str = "watch") -> AsyncGenerator[WatchItem, None]:
        watcher = _Watcher(check_prefix(prefix))
        self._watchers.add(watcher)
        known: set[str] = set()
        position, life, listing = 0, self._life, 0
        try:
            while True:
                watcher.begin_listing()
                if life != self._life:
                    position, life = 0, self._life
                listed = sorted(
                    (e for e in self._last.values() if is_below(prefix, e.key)), key=lambda entry: entry.revision
                )
                upto, since, listing = self._revision, position, listing + 1
                for gone in known - {e.key for e in listed}:
                    known.discard(gone)
                    yield Vanished(gone, upto)
                for entry in listed:
                    if entry.revision > since:
                        position = _note(known, entry)
                        yield entry
                position = upto
                yield Synced(upto, str(life), listing)
                while not watcher.interrupted:
                    if watcher.backlog:
                        entry = watcher.backlog.popleft()
                        position = _note(known, entry)
                        yield entry
                    elif not await _is_woken(watcher.wake):
                        yield Synced(position, str(life), listing)
        finally:
            self._watchers.discard(watcher)

    async def changes(self, prefix: str = "", *, name: str = "changes") -> AsyncGenerator[Entry | Synced, None]:
        watcher = _Watcher(check_prefix(prefix))
        self._watchers.add(watcher)
        listing = 0
        try:
            while True:
                watcher.begin_listing()
                position, life, listing = self._revision, self._life, listing + 1
                yield Synced(position, str(life), listing)
                while not watcher.interrupted:
                    if watcher.backlog:
                        entry = watcher.backlog.popleft()
                        position = entry.revision
                        yield entry
                    elif not await _is_woken(watcher.wake):
                        yield Synced(position, str(life), listing)
        finally:
            self._watchers.discard(watcher)

    async def scan(self, prefix: str = "", *, after: int = 0) -> AsyncGenerator[Entry, None]:
        check_prefix(prefix)
        while True:
            later = [e for e in self._last.values() if e.revision > after and is_below(prefix, e.key)]
            if not later:
                return
            entry = min(later, key=lambda e: e.revision)
            after = entry.revision
            yield entry

    # ── what tests do to it ──────────────────────────────────────────────────────────────────────────────────────────

    def interrupt(self) -> None:
        """Break all watches: what they have not yielded yet is lost to them, and they list again."""
        for watcher in self._watchers:
            watcher.interrupted = True
            watcher.wake.set()

    def compact(self, key: str) -> None:
        """Remove the key's last entry without a trace, as tombstones go after `TOMBSTONE_TTL_S`."""
        self._last.pop(key, None)

    def recreate(self) -> None:
        """Delete the bucket and make it anew: empty, revisions start over, watches list again."""
        self._last.clear()
        self._revision = 0
        self._life += 1
        self.interrupt()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _live_revision(self, key: str) -> int:
        entry = self._last.get(key)
        return 0 if entry is None or entry.deleted else entry.revision

    def _check_revision(self, key: str, revision: int) -> None:
        if revision < 1 or self._live_revision(key) != revision:
            raise errors.Conflict(f'"{key}" was changed by somebody else', name=key)

    def _write(self, entry: Entry, ttl_s: int | None) -> int:
        self._revision += 1
        written = Entry(entry.key, entry.value, self._revision, entry.deleted)
        self._last[entry.key] = written
        expiry = self._expiries.pop(entry.key, None)
        if expiry is not None:
            expiry.cancel()
        if ttl_s is not None:
            loop = asyncio.get_running_loop()
            self._expiries[entry.key] = loop.call_later(ttl_s, self._expire, entry.key, written.revision)
        for watcher in self._watchers:
            watcher.offer(written)
        return self._revision

    def _expire(self, key: str, revision: int) -> None:
        if self._live_revision(key) == revision:
            self._write(Entry(key, b"", 0, deleted=True), None)


def _note(known: set[str], entry: Entry) -> int:
    """Remember whether the key lives, so that a later listing can tell what vanished. Returns the entry's revision."""
    if entry.deleted:
        known.discard(entry.key)
    else:
        known.add(entry.key)
    return entry.revision


async def _is_woken(wake: asyncio.Event) -> bool:
    """False when nothing happened for `SIGN_OF_LIFE_S`."""
    try:
        async with asyncio.timeout(SIGN_OF_LIFE_S):  # not wait_for: in Python 3.11 it can swallow a cancellation
            await wake.wait()
    except TimeoutError:
        return False
    wake.clear()
    return True
