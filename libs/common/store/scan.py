"""Reading a bucket through once, however much is in it: entries pass by in order of revision, and none is kept.

For whoever needs all of very many entries now and then and must not hold them. `jetstream` makes these.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from libs.common import errors
from libs.common.bus.jetstream_api import SECOND_NS, JetStreamApi
from libs.common.bus.pull import ConsumerLost, Pull
from libs.common.contracts.permissions import stream_of
from libs.common.store.base import Entry
from libs.common.store.entries import to_entry

PULL_MESSAGES = 500
PULL_BYTES = 4 * 1024 * 1024
"""What is under way at once is what a scan costs in memory."""
ABANDONED_S = 30
MAX_PAUSE_S = 1.0


class Scan:
    """One reading; where it is (`_position`) outlives its consumers."""

    def __init__(self, api: JetStreamApi, bucket: str, prefix: str, after: int, budget_s: float) -> None:
        self._api = api
        self._bucket = bucket
        self._stream = stream_of(bucket)
        self._start = f"$KV.{bucket}."
        self._filter = f"{self._start}{prefix}.>" if prefix else f"{self._start}>"
        self._name = re.sub(r"[^-\w]", "-", f"scan-{prefix or 'all'}")
        self._position = after
        self._budget_s = budget_s

    async def entries(self) -> AsyncGenerator[Entry, None]:
        """See `Store.scan`. What interrupts it is tried again as long as it gets on."""
        pause_s, moved_at, position = 0.02, time.monotonic(), self._position
        while True:
            try:
                async with aclosing(self._follow()) as entries:
                    async for entry in entries:
                        yield entry
                return
            except (ConsumerLost, errors.Unavailable, errors.Timeout, errors.NotFound) as exc:
                if self._position > position:
                    pause_s, moved_at, position = 0.02, time.monotonic(), self._position
                elif time.monotonic() - moved_at > self._budget_s:
                    raise errors.Unavailable(f'bucket "{self._bucket}" cannot be read through: {exc}') from exc
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)

    async def _follow(self) -> AsyncGenerator[Entry, None]:
        """Go on after the position with one consumer, until nothing is left."""
        consumer = f"{self._name}-{secrets.token_hex(5)}"
        try:
            async with Pull(self._api, self._stream, consumer, batch=PULL_MESSAGES, max_bytes=PULL_BYTES) as pull:
                expected, left = 0, await self._create_consumer(consumer)
                while left:
                    arrived = await pull.next()
                    if arrived is None:
                        # What was still to come may have been written over or deleted meanwhile.
                        left = await self._left(consumer, expected)
                        continue
                    message, delivery = arrived
                    expected, left = expected + 1, delivery.pending
                    if delivery.consumer_sequence != expected:
                        raise ConsumerLost("a message was missed")
                    self._position = delivery.stream_sequence
                    key = message.subject[len(self._start) :]
                    yield to_entry(key, message.data, delivery.stream_sequence, message.headers or {})
        finally:
            await self._delete_consumer(consumer)

    async def _create_consumer(self, consumer: str) -> int:
        """How many entries are to come."""
        config: dict[str, Any] = {
            "name": consumer,
            "filter_subject": self._filter,
            # A bucket keeps one message for each key, so these are the last ones.
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._position + 1,
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

    async def _left(self, consumer: str, taken: int) -> int:
        """How many are to come by now, those included that are on their way."""
        info = await self._api.call(f"CONSUMER.INFO.{self._stream}.{consumer}")
        return int(info["num_pending"]) + int(info["delivered"]["consumer_seq"]) - taken

    async def _delete_consumer(self, consumer: str) -> None:
        if not self._api.connection.connected:
            return
        try:
            await self._api.call(f"CONSUMER.DELETE.{self._stream}.{consumer}", timeout_s=1.0)
        except errors.HerdsmanError:
            return  # it goes by itself after `ABANDONED_S`
