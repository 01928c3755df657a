"""The store over NATS JetStream: one bucket is one stream, a key is a subject, a revision is a sequence.

Every write is compare-and-set and tried until it is certain (`persist`). A lost answer is resolved by reading the key back.
Watches are in `watch`, the streams' settings in `buckets`, what stored messages mean in `entries`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from libs.common import errors
from libs.common.bus.jetstream_api import EXPECTED_SEQUENCE, JetStreamApi, Refused, Stored
from libs.common.bus.nats import NatsBus
from libs.common.contracts.permissions import stream_of
from libs.common.store.base import TOMBSTONE_TTL_S, Entry, Put, Synced, WatchItem
from libs.common.store.breaker import WriteBreaker
from libs.common.store.buckets import ensure_bucket
from libs.common.store.changes import Changes
from libs.common.store.entries import OPERATION, is_tombstone, to_entry
from libs.common.store.keys import check_batch, check_key, check_prefix
from libs.common.store.persist import BUDGET_S, OutcomeUnknown, persist
from libs.common.store.scan import Scan
from libs.common.store.watch import Watch

# PURGE, not DEL: when a tombstone's own time is over, the server writes no further tombstone in its place.
_TOMBSTONE = {OPERATION: "PURGE", "Nats-TTL": f"{TOMBSTONE_TTL_S}s"}


FROZEN_AFTER = 2
"""Tries of a write that nobody answered, while reads are answered, until the store counts as frozen."""


class _NotTakenError(Exception):
    """Reads are answered and this write was not, again and again."""


class JetStreamStore:
    """Implements `store.base.Store`. Give values an operation id (`objects.encode_unique`): that makes lost answers certain."""

    def __init__(self, bus: NatsBus, bucket: str, *, budget_s: float = BUDGET_S) -> None:
        self.bucket = bucket
        self.api = JetStreamApi(bus.connection)
        self._stream = stream_of(bucket)
        self._budget_s = budget_s
        self._breaker = WriteBreaker(bucket)

    async def ensure(self, *, replicas: int = 1) -> None:
        """Make the bucket or bring its settings up to date. For the owner, before anything else. Raises as `ensure_bucket`."""

        async def attempt(_lost: bool) -> None:
            await ensure_bucket(self.api, self.bucket, replicas=replicas)

        await persist(attempt, budget_s=self._budget_s)

    async def get(self, key: str) -> Entry:
        check_key(key)

        async def attempt(_lost: bool) -> Stored | None:
            try:
                return await self._last(key)
            except errors.Timeout as exc:  # a read that was not answered is no unknown outcome
                raise errors.Unavailable(f'the store does not answer for "{key}": try again soon') from exc

        stored = await persist(attempt, budget_s=self._budget_s)
        if stored is None or is_tombstone(stored.headers):
            raise errors.NotFound(f'"{key}" not found in bucket "{self.bucket}"', name=key)
        return to_entry(key, stored.data, stored.sequence, stored.headers)

    async def create(self, key: str, value: bytes, *, ttl_s: int | None = None) -> int:
        check_key(key)
        expected = 0

        async def attempt(lost: bool) -> int:
            nonlocal expected
            try:
                return await self._publish(key, value, expected, _ttl(ttl_s))
            except errors.Conflict as exc:
                last = await self._last(key)
                if last is None or is_tombstone(last.headers):
                    # A tombstone counts as absent: write over exactly this one. One that went meanwhile: from 0 again.
                    expected = 0 if last is None else last.sequence
                    raise Refused("a tombstone was in the way", 0, again=True) from exc
                if lost and last.data == value:
                    return last.sequence
                raise errors.AlreadyExists(f'"{key}" already exists in bucket "{self.bucket}"', name=key) from exc

        return await self._write(attempt, lambda: self._find_written(key, value, deleted=False))

    async def update(self, key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int:
        return await self._replace(key, value, revision, _ttl(ttl_s))

    async def delete(self, key: str, last: bytes, revision: int) -> int:
        return await self._replace(key, last, revision, dict(_TOMBSTONE))

    async def batch(self, writes: Sequence[Put]) -> int:
        check_batch(writes)
        tombstones: dict[str, int] = {}

        async def attempt(lost: bool) -> int:
            try:
                return await self.api.publish_batch([self._batched(put, tombstones) for put in writes])
            except errors.Conflict as exc:
                if lost and (last := await self._committed(writes)):
                    return last
                if await self._find_tombstones(writes, tombstones):
                    raise Refused("a tombstone was in the way", 0, again=True) from exc
                raise errors.Conflict(
                    f'something of this change to bucket "{self.bucket}" was changed by somebody else'
                ) from exc

        return await self._write(attempt, lambda: self._committed(writes))

    def watch(self, prefix: str = "", *, name: str = "watch") -> AsyncGenerator[WatchItem, None]:
        return Watch(self.api, self.bucket, check_prefix(prefix), name).items()

    def changes(self, prefix: str = "", *, name: str = "changes") -> AsyncGenerator[Entry | Synced, None]:
        return Changes(self.api, self.bucket, check_prefix(prefix), name).items()

    def scan(self, prefix: str = "", *, after: int = 0) -> AsyncGenerator[Entry, None]:
        return Scan(self.api, self.bucket, check_prefix(prefix), after, self._budget_s).entries()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _subject(self, key: str) -> str:
        return f"$KV.{self.bucket}.{key}"

    async def _last(self, key: str) -> Stored | None:
        return await self.api.last_message(self._stream, self._subject(key))

    async def _publish(self, key: str, value: bytes, expected: int, headers: dict[str, str]) -> int:
        return await self.api.publish(self._subject(key), value, {EXPECTED_SEQUENCE: str(expected), **headers})

    async def _replace(self, key: str, value: bytes, revision: int, headers: dict[str, str]) -> int:
        changed = errors.Conflict(f'"{check_key(key)}" was changed by somebody else', name=key)
        if revision < 1:
            raise changed

        async def attempt(lost: bool) -> int:
            try:
                return await self._publish(key, value, revision, headers)
            except errors.Conflict as exc:
                if not lost:
                    raise changed from exc
                if revised := await self._find_written(key, value, deleted=OPERATION in headers):
                    return revised
                raise OutcomeUnknown(
                    f'"{key}" was changed by somebody else, perhaps after this change', name=key
                ) from exc

        return await self._write(attempt, lambda: self._find_written(key, value, deleted=OPERATION in headers))

    async def _write(self, attempt: Callable[[bool], Awaitable[int]], read_back: Callable[[], Awaitable[int]]) -> int:
        """`attempt` until it is certain, unless the store is known to take no writes.

        `read_back` gives the revision of this very write if it is to be seen, else 0. A stream that stopped taking writes drops
        what it was sent, also when it goes on later, so what is not there then was not done: that is Unavailable, not unknown.
        """
        self._breaker.check()
        unanswered = 0

        async def watched(lost: bool) -> int:
            nonlocal unanswered
            try:
                return await attempt(lost)
            except OutcomeUnknown:
                raise
            except errors.Timeout as exc:
                unanswered += 1
                # Without a leader, or while the server stands still, reading is not answered either: then waiting helps.
                if unanswered < FROZEN_AFTER or not await self._answers_reads():
                    raise
                raise _NotTakenError from exc

        try:
            revision = await persist(watched, budget_s=self._budget_s)
        except _NotTakenError as exc:
            self._breaker.open()
            revision = await read_back()
            if not revision:
                raise errors.Unavailable(
                    f'the store took no write to bucket "{self.bucket}" and nothing was written: its disk is probably full'
                ) from exc
            return revision
        self._breaker.close()
        return revision

    async def _find_written(self, key: str, value: bytes, *, deleted: bool) -> int:
        """The revision of the key's last entry if it is exactly this one; 0 if not."""
        last = await self._last(key)
        if last is not None and last.data == value and is_tombstone(last.headers) == deleted:
            return last.sequence
        return 0

    async def _answers_reads(self) -> bool:
        try:
            await self.api.call(f"STREAM.INFO.{self._stream}")
        except errors.HerdsmanError:
            return False
        return True

    def _batched(self, put: Put, tombstones: dict[str, int]) -> tuple[str, bytes, dict[str, str]]:
        headers = dict(_TOMBSTONE) if put.deleted else {}
        if put.revision is not None:
            headers[EXPECTED_SEQUENCE] = str(put.revision or tombstones.get(put.key, 0))
        return self._subject(put.key), put.value, headers

    async def _committed(self, writes: Sequence[Put]) -> int:
        """The revision of the batch's last write if any of its writes is still to be seen; 0 if none is."""
        for index, put in enumerate(writes):
            last = await self._last(put.key)
            if last is not None and last.data == put.value and is_tombstone(last.headers) == put.deleted:
                return last.sequence + len(writes) - 1 - index
        return 0

    async def _find_tombstones(self, writes: Sequence[Put], tombstones: dict[str, int]) -> bool:
        """Note the tombstones of keys that must not exist. Returns whether that changed what the batch expects."""
        before = dict(tombstones)
        for put in writes:
            if put.revision == 0:
                last = await self._last(put.key)
                tombstones.pop(put.key, None)
                if last is not None:
                    if not is_tombstone(last.headers):
                        return False
                    tombstones[put.key] = last.sequence
        return tombstones != before


def _ttl(ttl_s: int | None) -> dict[str, str]:
    return {} if ttl_s is None else {"Nats-TTL": f"{ttl_s}s"}
