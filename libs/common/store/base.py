"""The contract of a bucket: compare-and-set writes, atomic batches, and a watch that neither misses nor invents.

Promises, which the conformance suite checks on every implementation:
- A write that returned is durable. A lost answer is resolved by reading the key back and comparing bytes, so a caller puts
  an operation id into each value (`objects.encode_unique`). A write that still raises `Timeout` may or may not have happened.
- Revisions rise over the whole bucket; an entry's revision is that of its last write.
- Delete writes a tombstone that keeps the object's last bytes, so that watchers can say what was deleted. An entry whose
  time ran out (`ttl_s`) gets a tombstone without bytes. Not found never means deleted: only a tombstone or a complete
  listing does. Tombstones go after `TOMBSTONE_TTL_S`.
- A watch yields the last entry of every key in revision order, tombstones too, then `Synced`, then every later write in
  order. After any interruption it lists again and yields the difference: an entry at least once for its newest revision,
  and a `Vanished` for each key that is no longer there at all (its tombstone was compacted while the watch was away).
- `changes` lists nothing: after each `Synced` with a new `listing` it yields, in order, what is written after; of writes of one key
  close behind each other perhaps the newest alone. What was written before that `Synced` can be read with `get` by then, and what was missed
  between two of them is never told. Its revision is exact: everything after it is told.
- `scan` yields the last entry of every key in revision order, tombstones too, and ends when it has caught up. A key that is written
  meanwhile comes once more at its newest revision; none is left out.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

TOMBSTONE_TTL_S = 7 * 24 * 3600
"""How long a tombstone stays: a watch that was away for longer learns of the delete from its next complete listing."""
MAX_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of one key. For a tombstone `deleted` is true and `value` holds the last bytes before the delete."""

    key: str
    value: bytes
    revision: int
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Synced:
    """The watch has yielded everything up to `revision` and is live. Repeated every few seconds as a sign of life."""

    revision: int
    epoch: str = ""
    """Which life of the bucket this is. It changes when a bucket was made anew or restored: revisions start over."""
    listing: int = 1
    """Number of complete listings that this watch has made; one more after each interruption."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """The key is gone although no tombstone was seen: a complete listing did not have it."""

    key: str
    revision: int
    """Revision of the listing that did not have it."""


WatchItem = Entry | Synced | Vanished


@dataclass(frozen=True, slots=True)
class Put:
    """One write of a batch. `revision` 0 = must not exist (a tombstone counts as absent); None = whatever is there."""

    key: str
    value: bytes
    revision: int | None = None
    deleted: bool = False
    """True: write a tombstone with `value` as the last bytes."""


class Store(Protocol):
    """One bucket. Keys are dotted tokens of [-a-z0-9_], e.g. `clusters.prod`. Errors are families of `libs.common.errors`.

    All writes raise `Conflict` on a wrong revision, `Unavailable` when the store refuses for want of room or a leader,
    `Timeout` when the outcome is unknown after the retry budget.
    """

    bucket: str

    async def get(self, key: str) -> Entry:
        """The last entry from the leader, never stale within the bucket. Raises NotFound for absent and deleted keys."""
        ...

    async def create(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        """Write a key that must not exist (or is deleted). Returns the revision. Raises AlreadyExists."""
        ...

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int:
        """Write over exactly `revision`. Returns the new revision. Raises Conflict."""
        ...

    async def delete(self, key: str, last: bytes, revision: int) -> int:
        """Write a tombstone over exactly `revision`, keeping `last`. Returns the tombstone's revision. Raises Conflict."""
        ...

    async def batch(self, writes: Sequence[Put]) -> int:
        """All or none, at most `MAX_BATCH` writes, each key once. Returns the revision of the last. Raises Conflict."""
        ...

    def watch(self, prefix: str = "", *, name: str = "watch") -> AsyncGenerator[WatchItem, None]:
        """Everything under `prefix` (dotted tokens, "" = all), for ever; survives reconnects and server restarts.

        Iterate it inside `contextlib.aclosing`, so that it cleans up when you leave.
        """
        ...

    def changes(self, prefix: str = "", *, name: str = "changes") -> AsyncGenerator[Entry | Synced, None]:
        """What changes under `prefix` from now on, without a listing: costs the same however much is stored.

        A `Synced` whose `listing` is new says: anything may have changed before. Whoever remembers something forgets it then.
        """
        ...

    def scan(self, prefix: str = "", *, after: int = 0) -> AsyncGenerator[Entry, None]:
        """Everything under `prefix` that was written after revision `after`, once through, with little in memory at a time.

        Iterate it inside `contextlib.aclosing`. Raises Unavailable when it gets no further.
        """
        ...
