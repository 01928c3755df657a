"""One server for all tests that don't harm it; those that do start their own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterator

import pytest

from integration.harness.nats import NatsServer
from libs.common.bus.nats import NatsBus, connect
from tests.conftest import no_task_is_left_behind

__all__ = ["no_task_is_left_behind"]


@pytest.fixture(scope="session")
def server() -> Iterator[NatsServer]:
    with NatsServer() as started:
        yield started


@pytest.fixture
def own_server() -> Iterator[NatsServer]:
    """A server that the test may harm."""
    with NatsServer() as started:
        yield started


@pytest.fixture
async def admin(server: NatsServer) -> AsyncGenerator[NatsBus, None]:
    """A client that may do everything in the platform's account."""
    async with connect(server.connect_as("administration")) as bus:
        yield bus


@pytest.fixture
def bucket_name() -> str:
    return f"t{secrets.token_hex(4)}"
