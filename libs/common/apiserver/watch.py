"""The watch cache of one kind: recent changes over an informer, so that a watch resumes where it stopped and a paged list
sees one moment.

The gateway holds one for each kind. Streams read the shared ring by position: a slow reader costs no memory, and one that
falls off the ring's end is told 410 and lists again. Nothing is kept over a restart, but the first listing tells what changed
since a resourceVersion from before it (`history`): such a watch goes on, unless that can't be told for certain.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from libs.common import errors
from libs.common.apiserver.history import ListingHistory
from libs.common.resources import codec
from libs.common.store.base import Entry
from libs.common.store.informer import Change, Informer

MAX_EVENTS = 4096
MAX_BYTES = 16 * 1024 * 1024
FUTURE_WAIT_S = 3.0
"""How long a request for a version that is not here yet waits, as in Kubernetes."""
INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Document = Mapping[str, Any]
Predicate = Callable[[Document], bool]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


@dataclass(frozen=True, slots=True)
class Event:
    """One watch event; `document` of a bookmark holds a resourceVersion and nothing else."""

    type: EventType
    document: dict[str, Any]


class WatchCache:
    """Invariant: `_ring` holds every change with a revision above `since`, in order, numbered without gaps from `_first`.

    Make it before the informer's first listing ends: else it knows nothing of what was before.
    """

    def __init__(
        self,
        informer: Informer,
        *,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.informer = informer
        self.since = 0
        self.streams = 0
        self._max_events, self._max_bytes = max_events, max_bytes
        self._ring: dict[int, Change] = {}
        self._bytes = 0
        self._first = self._next = 0
        self._life = 0
        self._last_revision = 0
        self._wakers: set[asyncio.Event] = set()
        self._now = now
        self._history = ListingHistory(max_events, max_bytes)
        self._begun = False
        heard = informer.hear_listing(self._history.hear)
        self._unsubscribe = informer.subscribe(self._on_change, replay=False)
        if not heard:
            self._begin(informer.revision)

    async def start(self) -> None:
        """Wait until the informer has its first listing; changes are kept from that moment on."""
        await self.informer.synced.wait()
        if not self._begun:
            self._begin(self.informer.first_listing)

    def _begin(self, since: int) -> None:
        self._begun = True
        self.since = self._last_revision = since
        self._history.close(self.informer.epoch, self._now())

    def close(self) -> None:
        self._unsubscribe()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def snapshot(self, revision: int | None = None) -> tuple[list[Entry], int]:
        """All entries by key, and the revision they are of: now, or as they were at `revision`. Raises Expired."""
        now = self.informer.revision
        if revision is None or revision >= now:
            return sorted(self.informer.entries.values(), key=lambda e: e.key), now
        if revision < self.since:
            raise expired(revision, self.since)
        entries: dict[str, Entry | None] = dict(self.informer.entries)
        for number in range(self._next - 1, self._first - 1, -1):
            change = self._ring[number]
            if change.last.revision <= revision:
                break
            entries[change.key] = change.before
        return sorted((e for e in entries.values() if e is not None), key=lambda e: e.key), revision

    async def wait_for(self, revision: int) -> None:
        """Wait a little until this copy has `revision`. Raises Timeout as Kubernetes does for a version from the future."""
        try:
            await self.informer.wait_revision(revision, FUTURE_WAIT_S)
        except errors.Timeout as exc:
            raise errors.Timeout(
                f"Too large resource version: {revision}, current: {self.informer.revision}",
                retry_after_s=1,
                causes=[errors.Cause("", "Too large resource version", "ResourceVersionTooLarge")],
            ) from exc

    async def watch(
        self,
        revision: int | None,
        predicate: Predicate,
        *,
        bookmark_every_s: float | None = None,
        initial_events_end: bool = False,
        check: Callable[[], None] = lambda: None,
        key: str = "",
        initial: AsyncGenerator[Entry, None] | None = None,
    ) -> AsyncGenerator[Event]:
        """Changes after `revision`, for ever; None = first everything that is here (or in `initial`, if the copy has no entries), as ADDED.

        `predicate` sees old and new documents: what begins to match is ADDED, what ceases to is DELETED. Bookmarks pass
        every filter. `check` is called before anything is sent and on every `wake`; what it raises ends the stream. `key` is
        the only one that `predicate` can match, if there is such a one. Raises Expired when the stream can't go on without a gap: the client has to list again.
        """
        life = self._life
        waker = asyncio.Event()
        self._wakers.add(waker)
        self.streams += 1
        try:
            check()
            position, seen = self._next, self.informer.revision
            if revision is None:
                async with aclosing(initial if initial is not None else self._entries()) as entries:
                    async for entry in entries:
                        document = codec.decode_document(entry.value, entry.revision)
                        if predicate(document):
                            yield Event("ADDED", document)
                if initial_events_end:
                    yield bookmark(seen, initial_events_end=True)
            elif revision < self.since:
                replayed, position = self._replay(revision, predicate, key), self._first
                for past in replayed:
                    yield past
                    check()
            else:
                position = self._position_after(revision)
            while True:
                waker.clear()
                check()
                while position < self._next:
                    if self._life != life or position < self._first:
                        raise expired(seen, self.since)
                    change = self._ring[position]
                    position, seen = position + 1, change.last.revision
                    event = _event(change, predicate)
                    if event is not None:
                        yield event
                if self._life != life:
                    raise expired(seen, self.since)
                try:
                    async with asyncio.timeout(
                        bookmark_every_s
                    ):  # not wait_for: before 3.12 it can swallow a cancellation
                        await waker.wait()
                except TimeoutError:
                    # No await lies between this check and the read of the revision: nothing up to it is unsent.
                    if position == self._next and self._life == life:
                        seen = self.informer.revision
                        yield bookmark(seen)
        finally:
            self.streams -= 1
            self._wakers.discard(waker)

    async def _entries(self) -> AsyncGenerator[Entry, None]:
        for entry in sorted(self.informer.entries.values(), key=lambda e: e.key):
            yield entry

    def _replay(self, revision: int, predicate: Predicate, key: str) -> list[Event]:
        """What the first listing tells of the time after `revision`. Raises Expired when that leaves a doubt.

        What was there before is not known: an object that does not match now may have matched then, and nobody could tell its
        watcher that it ceased to. One that matches is ADDED, which watchers take for one that they know, too.
        """
        if revision < self._history.floor:
            raise expired(revision, self.since)
        events = []
        for entry in self._history.after(revision, key):
            document = codec.decode_document(entry.value, entry.revision)
            if not predicate(document):
                raise expired(revision, self.since)
            events.append(Event("DELETED" if entry.deleted else "ADDED", document))
        return events

    def _position_after(self, revision: int) -> int:
        if revision < self.since or revision > self.informer.revision:
            raise expired(revision, self.since)
        for number in range(self._next - 1, self._first - 1, -1):
            if self._ring[number].last.revision <= revision:
                return number + 1
        return self._first

    # ── following ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_change(self, change: Change) -> None:
        if not self.informer.synced.is_set():
            return
        if not self._begun:
            self._begin(self.informer.first_listing)
        if change.last.revision <= self._last_revision:
            # Not in order: the bucket was made anew, or one listing let go of several objects at once. No stream can tell
            # where it stands: all are cut and list again.
            self._reset(change)
            return
        self._last_revision = change.last.revision
        self._ring[self._next] = change
        self._next += 1
        self._bytes += _size(change)
        while len(self._ring) > self._max_events or (self._bytes > self._max_bytes and len(self._ring) > 1):
            dropped = self._ring.pop(self._first)
            self._first += 1
            self._bytes -= _size(dropped)
            self.since = dropped.last.revision
            self._history.clear()
        self.wake()

    def _reset(self, change: Change) -> None:
        self.cut(max(change.last.revision, self.informer.revision))
        self._last_revision = change.last.revision

    def cut(self, since: int) -> None:
        """Nothing certain is known of the time before `since`: every stream ends, and its client lists again."""
        self._ring.clear()
        self._history.clear()
        self._bytes = 0
        self._first = self._next
        self._life += 1
        self.since = self._last_revision = since
        self.wake()

    def wake(self) -> None:
        """Let every stream run its check again."""
        for waker in self._wakers:
            waker.set()


def bookmark(revision: int, *, initial_events_end: bool = False) -> Event:
    """Everything up to `revision` was sent."""
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if initial_events_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return Event("BOOKMARK", {"metadata": metadata})


def expired(revision: int, since: int) -> errors.Expired:
    """410, in the words that client libraries know."""
    return errors.Expired(f"too old resource version: {revision} ({since})")


def _event(change: Change, predicate: Predicate) -> Event | None:
    before = _document(change.before)
    matched = before is not None and predicate(before)
    if change.after is not None:
        document = codec.decode_document(change.after.value, change.after.revision)
        if predicate(document):
            return Event("MODIFIED" if matched else "ADDED", document)
    if not matched or before is None:
        return None
    last = change.last.value if change.after is None else change.before.value if change.before else change.last.value
    return Event("DELETED", codec.decode_document(last, change.last.revision))


def _document(entry: Entry | None) -> dict[str, Any] | None:
    return None if entry is None else codec.decode_document(entry.value, entry.revision)


def _size(change: Change) -> int:
    return len(change.last.value) + (len(change.before.value) if change.before is not None else 0)
