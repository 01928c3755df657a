from __future__ import annotations

import pytest

from libs.common.store.memory import MemoryStore
from tests.store.lease_conformance import LeaseConformance


class TestLeaseOnMemory(LeaseConformance):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore("cluster_controller")
