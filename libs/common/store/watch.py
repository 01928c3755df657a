"""The watch over JetStream: list, follow, and list again after any doubt. Yields what `store.base` promises.

One named consumer in the server's memory delivers the last entry of each key and then what follows. It is given up at the
first gap, at missed heartbeats, when it or the connection is gone; the next one lists everything and the difference
is yielded. `informer` keeps the copy; `jetstream` makes these.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import structlog

from libs.common import errors
from libs.common.bus.client import RawMessage
from libs.common.bus.jetstream_api import JetStreamApi, parse_delivery
from libs.common.contracts.permissions import stream_of
from libs.common.store.base import Entry, Synced, Vanished, WatchItem
from libs.common.store.buckets import SECOND_NS
from libs.common.store.entries import to_entry

HEARTBEAT_S = 2.0
PULL_EXPIRES_S = 25.0
PULL_MESSAGES = 2000
PULL_BYTES = 16 * 1024 * 1024
"""Far below what the client library keeps for a slow reader before it drops messages."""
LISTING_S = 30.0
"""A listing that stands still for so long is begun anew: the server believes there is more and does not deliver it."""
ABANDONED_S = 30
MAX_PAUSE_S = 2.0
_PULL_AGAIN = ("404", "408")
_LETHAL = ("deleted", "shutdown", "leadership")


class _Gone(Exception):
    """This consumer can no longer be trusted."""


class _Arrivals:
    """What has come in and was not looked at yet; bounded by what was pulled."""

    def __init__(self) -> None:
        self._messages: deque[RawMessage] = deque()
        self._wake = asyncio.Event()
        self._lost = False

    def put(self, message: RawMessage) -> None:
        self._messages.append(message)
        self._wake.set()

    def lose(self) -> None:
        self._lost = True
        self._wake.set()

    async def get(self, patience_s: float) -> RawMessage:
        while not self._messages:
            if self._lost:
                raise _Gone("the connection was lost")
            self._wake.clear()
            try:
                async with asyncio.timeout(patience_s):
                    await self._wake.wait()
            except TimeoutError as exc:
                raise _Gone("heartbeats were missed") from exc
        return self._messages.popleft()


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
        self._log = structlog.get_logger().bind(logger="watch", bucket=bucket, watch=name)

    async def items(self) -> AsyncGenerator[WatchItem, None]:
        """See `Store.watch`. Raises Denied when the server does not let this process read the bucket."""
        pause_s, failures = 0.02, 0
        while True:
            listing = self._listing
            try:
                await self._api.connection.up.wait()
                async with aclosing(self._follow()) as items:
                    async for item in items:
                        yield item
            except (_Gone, errors.Unavailable, errors.Timeout, errors.NotFound) as exc:
                if self._listing > listing:
                    pause_s, failures = 0.02, 0
                failures += 1
                if failures & (failures - 1) == 0:
                    self._log.info("watch_interrupted", reason=str(exc), failures=failures)
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)

    async def _follow(self) -> AsyncGenerator[WatchItem, None]:
        """List and follow with one consumer until it is in doubt."""
        connection = self._api.connection
        upto = await self._examine_stream()
        arrivals = _Arrivals()
        inbox = connection.inbox()
        consumer = f"{self._name}-{secrets.token_hex(5)}"
        forget = connection.on_loss(arrivals.lose)
        subscription = await connection.subscribe(inbox, arrivals.put)
        try:
            pending = await self._create_consumer(consumer)
            async with aclosing(self._deliver(arrivals, consumer, inbox, pending, upto)) as items:
                async for item in items:
                    yield item
        finally:
            forget()
            await connection.unsubscribe(subscription)
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

    async def _deliver(
        self, arrivals: _Arrivals, consumer: str, inbox: str, pending: int, upto: int
    ) -> AsyncGenerator[WatchItem, None]:
        seen: set[str] = set()
        synced = False
        expected, credit = 0, 0
        began = time.monotonic()
        if pending == 0:
            synced = True
            for item in self._close_listing(seen, upto):
                yield item
        while True:
            if credit <= 0:
                await self._pull(consumer, inbox)
                credit = PULL_MESSAGES
            message = await arrivals.get(2 * HEARTBEAT_S + 0.5)
            delivery = parse_delivery(message)
            if delivery is None:
                if _is_heartbeat(message):
                    if synced:
                        yield self._sync(self._position)
                    elif time.monotonic() - began > LISTING_S:
                        raise _Gone("the listing does not come to its end")
                else:
                    credit = 0
                continue
            expected, credit, began = expected + 1, credit - 1, time.monotonic()
            if delivery.consumer_sequence != expected:
                raise _Gone("a message was missed")
            entry = to_entry(
                message.subject[len(self._start) :], message.data, delivery.stream_sequence, message.headers or {}
            )
            if not synced:
                seen.add(entry.key)
            if entry.revision > self._position:
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

    def _close_listing(self, seen: set[str], upto: int) -> list[WatchItem]:
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
            "deliver_policy": "last_per_subject",
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": ABANDONED_S * SECOND_NS,
        }
        created = await self._api.call(
            f"CONSUMER.CREATE.{self._stream}.{consumer}.{self._filter}",
            {"stream_name": self._stream, "config": config, "action": "create"},
        )
        return int(created["num_pending"])

    async def _pull(self, consumer: str, inbox: str) -> None:
        request = {
            "batch": PULL_MESSAGES,
            "max_bytes": PULL_BYTES,
            "expires": int(PULL_EXPIRES_S * SECOND_NS),
            "idle_heartbeat": int(HEARTBEAT_S * SECOND_NS),
        }
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{consumer}"
        await self._api.connection.publish(subject, json.dumps(request).encode(), reply=inbox)

    async def _delete_consumer(self, consumer: str) -> None:
        if not self._api.connection.connected:
            return
        try:
            await self._api.call(f"CONSUMER.DELETE.{self._stream}.{consumer}", timeout_s=1.0)
        except errors.HerdsmanError as exc:
            self._log.debug("consumer_left_to_expire", consumer=consumer, reason=exc.message)


def _is_heartbeat(message: RawMessage) -> bool:
    """False for the end of a pull, after which one pulls again. Raises _Gone for the end of the consumer."""
    headers = message.headers or {}
    status, description = headers.get("Status", ""), headers.get("Description", "")
    if status == "100":
        return True
    if status in _PULL_AGAIN or (status == "409" and not any(word in description.lower() for word in _LETHAL)):
        return False
    raise _Gone(f"the consumer ended: {status} {description}".rstrip())
