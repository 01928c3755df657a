"""A running service on memory for each test that wants one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.cluster_controller.made import Hub, started_hub


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with started_hub() as made:
        yield made
