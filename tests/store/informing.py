"""A running informer over the double, for the tests of what is built on it."""

from __future__ import annotations

import asyncio

from libs.common.store.informer import Change, Informer
from libs.common.store.memory import MemoryStore
from tests.store.watching import eventually


class Running:
    """An informer over a double, and what its subscriber was told."""

    def __init__(self, prefix: str = "") -> None:
        self.store = MemoryStore("identity")
        self.informer = Informer(self.store, prefix, confirm_after_s=0.05)
        self.changes: list[Change] = []
        self.informer.subscribe(self.changes.append)

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(self.informer.run(), name="informer")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def catch_up(self) -> None:
        await self.informer.synced.wait()
        await eventually(lambda: self.informer.revision >= self.store._revision)
