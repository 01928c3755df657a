"""Histories in the bucket: one key for each machine, written before the Node that it tells of, and read by nobody but who asks for it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from libs.common import errors
from libs.common.resources.node_history import NodeHistory, history_key
from libs.common.store.base import TOMBSTONE_TTL_S, Store
from libs.common.store.record import pack_record, unpack_record

_TRIES = 8


class HistoryLog:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, machine: str) -> tuple[NodeHistory, int]:
        """The history and its revision; an empty one and 0 where there is none."""
        try:
            entry = await self._store.get(history_key(machine))
        except errors.NotFound:
            return NodeHistory(machine=machine), 0
        return NodeHistory.model_validate(unpack_record(entry)), entry.revision

    async def change(
        self, machine: str, change: Callable[[NodeHistory], NodeHistory | None], *, ends: bool = False
    ) -> None:
        """Read, change and write until nobody came between; `change` gives None when there is nothing to write.

        `ends`: the machine went. Its history stays as long as its Node's tombstone, by which it is known when it comes back.
        """
        for attempt in range(_TRIES):
            history, revision = await self.read(machine)
            fresh = change(history)
            if fresh is None:
                return
            value, ttl_s = pack_record(fresh.to_document()), TOMBSTONE_TTL_S if ends else None
            try:
                if revision:
                    await self._store.update(history_key(machine), value, revision, ttl_s=ttl_s)
                else:
                    await self._store.create(history_key(machine), value, ttl_s=ttl_s)
            except (errors.Conflict, errors.AlreadyExists):
                await asyncio.sleep(random.uniform(0, 0.005 * 2**attempt))
                continue
            return
        raise errors.Conflict(f'the history of machine "{machine}" changes faster than it can be written')
