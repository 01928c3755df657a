"""What the tests of stores and informers share: reading a watch step by step, and waiting for what must come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from libs.common.store.base import Entry, Synced, Vanished, WatchItem

PATIENCE_S = 15.0


class Watching:
    """A watch that is read item by item; signs of life (repeated Synced) are skipped."""

    def __init__(self, items: AsyncGenerator[WatchItem, None]) -> None:
        self._items = items
        self._listing = 0

    async def next(self) -> WatchItem:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                item = await anext(self._items)
                if not isinstance(item, Synced) or item.listing > self._listing:
                    if isinstance(item, Synced):
                        self._listing = item.listing
                    return item

    async def entry(self) -> Entry:
        item = await self.next()
        assert isinstance(item, Entry), item
        return item

    async def until_synced(self) -> tuple[list[Entry | Vanished], Synced]:
        """Everything up to the end of a listing."""
        items: list[Entry | Vanished] = []
        while True:
            item = await self.next()
            if isinstance(item, Synced):
                return items, item
            items.append(item)

    async def close(self) -> None:
        await self._items.aclose()


async def eventually(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Wait until `holds()`; fails when it does not come true in time."""
    async with asyncio.timeout(within_s):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
