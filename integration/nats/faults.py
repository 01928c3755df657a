"""What the fault tests share: a writer that notes what was acknowledged, and an informer that must end up equal to the bucket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from libs.common import errors
from libs.common.bus.nats import NatsBus
from libs.common.store.informer import Change, Informer
from libs.common.store.jetstream import JetStreamStore


class Writer:
    """Creates and updates entries until it is told to stop; `acknowledged` maps each key to the value that is certain."""

    def __init__(self, store: JetStreamStore, name: str) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.unknown: set[str] = set()
        self.refusals = 0
        self._store = store
        self._name = name
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> None:
        for number in itertools.count():
            if self._stopping:
                return
            await self._write(f"things.{self._name}-{number}", f"{self._name} {number}".encode())

    async def _write(self, key: str, value: bytes) -> None:
        try:
            revision = await self._store.create(key, value)
            self.acknowledged[key] = value
            self.unknown.add(key)
            await self._store.update(key, value + b"!", revision)
            self.acknowledged[key] = value + b"!"
            self.unknown.discard(key)
        except errors.Timeout:
            self.unknown.add(key)
        except errors.Unavailable:
            self.unknown.discard(key)
            self.refusals += 1


@asynccontextmanager
async def following(store: JetStreamStore) -> AsyncGenerator[tuple[Informer, list[Change]], None]:
    informer = Informer(store, name="fault", confirm_after_s=0.2)
    changes: list[Change] = []
    informer.subscribe(changes.append)
    task = asyncio.create_task(informer.run(), name="informer")
    try:
        yield informer, changes
    finally:
        task.cancel()
        await asyncio.wait([task])


async def read_all(bus: NatsBus, bucket: str) -> dict[str, bytes]:
    """All live entries, from a fresh listing."""
    async with following(JetStreamStore(bus, bucket)) as (informer, _changes):
        async with asyncio.timeout(20):
            await informer.synced.wait()
        return {key: entry.value for key, entry in informer.entries.items()}


def replay(changes: list[Change]) -> dict[str, bytes]:
    """What somebody who only heard the changes believes to be there; fails on a change that does not fit the one before."""
    believed: dict[str, bytes] = {}
    for change in changes:
        assert (change.before.value if change.before else None) == believed.get(change.key)
        if change.after is None:
            del believed[change.key]
        else:
            believed[change.key] = change.after.value
    return believed
