from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from libs.common.bus.nats import NatsBus
from libs.common.contracts.permissions import stream_of
from libs.common.store.jetstream import JetStreamStore
from tests.store.lease_conformance import LeaseConformance


class TestLeaseOnJetStream(LeaseConformance):
    @pytest.fixture
    async def store(self, admin: NatsBus, bucket_name: str) -> AsyncGenerator[JetStreamStore, None]:
        store = JetStreamStore(admin, bucket_name)
        await store.ensure()
        yield store
        await store.api.call(f"STREAM.DELETE.{stream_of(bucket_name)}")
