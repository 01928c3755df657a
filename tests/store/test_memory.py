from __future__ import annotations

import pytest

from libs.common.store.memory import MemoryStore
from tests.store.conformance import Bucket, StoreConformance


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    async def bucket(self) -> Bucket:
        store = MemoryStore("identity")

        async def interrupt() -> None:
            store.interrupt()

        async def compact(key: str) -> None:
            store.compact(key)

        async def recreate() -> None:
            store.recreate()

        return Bucket(store, interrupt, compact, recreate)
