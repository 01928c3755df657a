"""What the first listing of a bucket tells of the time before this process: enough to go on with watches that began earlier.

A bucket keeps the last entry of each key, deletes too, so all that changed after a revision can be read from a listing, as long
as no tombstone after it was compacted. `floor` is the lowest revision for which that is certain. `watch` asks here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from libs.common import errors
from libs.common.resources import codec
from libs.common.store.base import TOMBSTONE_TTL_S, Entry

CERTAIN = timedelta(seconds=TOMBSTONE_TTL_S - 86400)
"""A tombstone that is younger is still there; a day of distance for clocks that differ."""
SKEW = timedelta(minutes=1)
NOTHING = 2**63


class ListingHistory:
    """Entries of a first listing in order of revision, the newest of them where they are too many."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.last = 0
        self.floor = NOTHING
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._dropped = 0
        self._max_entries, self._max_bytes = max_entries, max_bytes

    def hear(self, entry: Entry) -> None:
        """One entry of the listing. A listing that begins again starts over here, too."""
        if entry.revision <= self.last:
            self.clear()
            self._dropped = 0
        self.last = entry.revision
        self._entries.append(entry)
        self._bytes += len(entry.value)
        if entry.deleted and not entry.value:
            # Its time ran out and nobody can say any more what was deleted: streams from before can't go on.
            self._dropped = entry.revision
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            dropped = self._entries.popleft()
            self._bytes -= len(dropped.value)
            self._dropped = max(self._dropped, dropped.revision)

    def close(self, epoch: str, now: datetime) -> None:
        """The listing is complete: find `floor`.

        In a bucket that is younger than any tombstone's life and was not restored from a backup, nothing was ever compacted.
        Else the first entry that is surely that young, and of this life of the bucket, is where certainty begins.
        """
        born = _parse_time(epoch.partition("/")[0])
        horizon = now - CERTAIN
        since = horizon if born is None else max(horizon, born - SKEW)
        is_young = born is not None and born > horizon
        certain = NOTHING
        for entry in self._entries:
            if not entry.value:
                continue
            if (written := _written_after(entry)) is not None and written >= since:
                certain = entry.revision
                break
            # Older than the bucket: it came from a backup, and revisions before it mean another history.
            is_young = False
        if is_young:
            certain = 0
        self.floor = max(certain, self._dropped)

    def clear(self) -> None:
        """Forget everything: what follows the listing has gaps, or belongs to another life of the bucket."""
        self._entries.clear()
        self._bytes = 0
        self.floor = NOTHING

    def after(self, revision: int, key: str = "") -> Iterator[Entry]:
        """Entries after a revision that is at least `floor`; of `key` alone if one is named."""
        return iter([e for e in self._entries if e.revision > revision and (not key or e.key == key)])


def _written_after(entry: Entry) -> datetime | None:
    """A moment that the entry is certainly not older than: the newest time that its own metadata holds."""
    try:
        metadata = codec.decode_document(entry.value, entry.revision)["metadata"]
    except errors.HerdsmanError:
        return None
    texts = [metadata.get("creationTimestamp"), metadata.get("deletionTimestamp")]
    texts += [managed.get("time") for managed in metadata.get("managedFields") or ()]
    return max((moment for text in texts if (moment := _parse_time(text)) is not None), default=None)


def _parse_time(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
