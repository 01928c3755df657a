"""The watch over JetStream: list, follow, and list again after any doubt. Yields what `store.base` promises.

One named consumer in the server's memory delivers the last entry of each key and then what follows. It is given up at the
first gap, at missed heartbeats, when it or the connection is gone; the next one lists everything and the difference
is yielded. `informer` keeps the copy; `jetstream` makes these.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import structlog

from libs.common import errors
from libs.common.bus.jetstream_api import SECOND_NS, JetStreamApi
from libs.common.bus.pull import ConsumerLost, Pull
from libs.common.contracts.permissions import stream_of
from libs.common.store.base import Entry, Synced, Vanished, WatchItem
from libs.common.store.entries import to_entry

PULL_MESSAGES = 2000
PULL_BYTES = 16 * 1024 * 1024
"""Far below what the client library keeps for a slow reader before it drops messages."""
LISTING_S = 30.0
"""A listing that stands still for so long is begun anew: the server believes there is more and does not deliver it."""
ABANDONED_S = 30
MAX_PAUSE_S = 1.0


class Watch:
    """One watch: what it has yielded (`known`, `position`) outlives its consumers."""

    def __init__(self, api: JetStreamApi, bucket: str, prefix: str, name: str) -> None:
        self._api = api
        self._bucket = bucket
        self._stream = stream_of(bucket)
        self._start = f"$KV.{bucket}."
        self._filter = f"{self._start}{prefix}.>" if prefix else f"{self._start}>"
        self._name = re.sub(r"[^-\w]", "-", name)
        self._known: set[str] = set()
        self._position = 0
        self._life: tuple[str, int] = ("", 0)
        self._listing = 0
        self._begin = 0
        """The last sequence before what the consumer delivers."""
        self._log = structlog.get_logger().bind(logger="watch", bucket=bucket, watch=name)

    deliver_policy = "last_per_subject"

    async def items(self) -> AsyncGenerator[Any, None]:
        """See `Store.watch`. Raises Denied when the server does not let this process read the bucket."""
        pause_s, failures = 0.02, 0
        while True:
            listing = self._listing
            try:
                await self._api.connection.up.wait()
                async with aclosing(self._follow()) as items:
                    async for item in items:
                        yield item
            except (ConsumerLost, errors.Unavailable, errors.Timeout, errors.NotFound) as exc:
                if self._listing > listing:
                    pause_s, failures = 0.02, 0
                failures += 1
                if failures & (failures - 1) == 0:
                    self._log.info("watch_interrupted", reason=str(exc), failures=failures)
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)

    async def _follow(self) -> AsyncGenerator[WatchItem, None]:
        """List and follow with one consumer until it is in doubt."""
        upto = await self._examine_stream()
        consumer = f"{self._name}-{secrets.token_hex(5)}"
        try:
            async with Pull(self._api, self._stream, consumer, batch=PULL_MESSAGES, max_bytes=PULL_BYTES) as pull:
                pending = await self._create_consumer(consumer)
                async with aclosing(self._deliver(pull, pending, upto)) as items:
                    async for item in items:
                        yield item
        finally:
            await self._delete_consumer(consumer)

    async def _examine_stream(self) -> int:
        """The stream's last sequence. Notices when it is not the stream, or not the history, that was read before."""
        info = await self._api.call(f"STREAM.INFO.{self._stream}")
        created, upto = str(info["created"]), int(info["state"]["last_seq"])
        if created != self._life[0]:
            self._life, self._position = (created, 0), 0
        elif upto < self._position:
            self._log.error(
                "bucket_went_back", had=self._position, has=upto, advice="the store lost acknowledged writes"
            )
            self._life, self._position = (created, self._life[1] + 1), 0
        return upto

    async def _deliver(self, pull: Pull, pending: int, upto: int) -> AsyncGenerator[WatchItem, None]:
        seen: set[str] = set()
        expected = 0
        moved_at = time.monotonic()
        synced = pending == 0
        if synced:
            for item in self._close_listing(seen, upto):
                yield item
        while True:
            arrived = await pull.next()
            if arrived is None:
                if synced:
                    yield self._sync(self._position)
                elif time.monotonic() - moved_at > LISTING_S:
                    raise ConsumerLost("the listing does not come to its end")
                continue
            message, delivery = arrived
            expected, moved_at = expected + 1, time.monotonic()
            if delivery.consumer_sequence != expected:
                raise ConsumerLost("a message was missed")
            key = message.subject[len(self._start) :]
            if not synced:
                seen.add(key)
            if delivery.stream_sequence > self._position:
                entry = to_entry(key, message.data, delivery.stream_sequence, message.headers or {})
                self._note(entry)
                yield entry
            if not synced and delivery.pending == 0:
                synced = True
                for item in self._close_listing(seen, upto):
                    yield item

    def _note(self, entry: Entry) -> None:
        self._position = entry.revision
        if entry.deleted:
            self._known.discard(entry.key)
        else:
            self._known.add(entry.key)

    def _close_listing(self, seen: set[str], upto: int) -> Sequence[WatchItem]:
        """What the complete listing did not have, and that it is complete. All keys before `upto` were listed."""
        self._listing += 1
        revision = max(upto, self._position)
        gone = sorted(self._known - seen)
        self._known.difference_update(gone)
        return [*(Vanished(key, revision) for key in gone), self._sync(revision)]

    def _sync(self, revision: int) -> Synced:
        return Synced(revision, f"{self._life[0]}/{self._life[1]}", self._listing)

    # ── the consumer ──

    async def _create_consumer(self, consumer: str) -> int:
        """How many entries its listing has."""
        config: dict[str, Any] = {
            "name": consumer,
            "filter_subject": self._filter,
            "deliver_policy": self.deliver_policy,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": ABANDONED_S * SECOND_NS,
        }
        created = await self._api.call(
            f"CONSUMER.CREATE.{self._stream}.{consumer}.{self._filter}",
            {"stream_name": self._stream, "config": config, "action": "create"},
        )
        self._begin = int(created["delivered"]["stream_seq"])
        return int(created["num_pending"])

    async def _delete_consumer(self, consumer: str) -> None:
        if not self._api.connection.connected:
            return
        try:
            await self._api.call(f"CONSUMER.DELETE.{self._stream}.{consumer}", timeout_s=1.0)
        except errors.HerdsmanError as exc:
            self._log.debug("consumer_left_to_expire", consumer=consumer, reason=exc.message)
