from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from libs.common.bus.memory import MemoryBus
from tests.bus.conformance import BusConformance


class TestMemoryBus(BusConformance):
    @pytest.fixture
    def bus(self) -> MemoryBus:
        return MemoryBus()

    @pytest.fixture
    def break_off(self, bus: MemoryBus) -> Callable[[], Awaitable[None]]:
        async def disconnect() -> None:
            bus.disconnect()

        return disconnect
