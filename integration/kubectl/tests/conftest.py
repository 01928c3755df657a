"""A gateway with a stand-in front door, and every kubectl that this machine has."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from integration.kubectl.front import Front
from integration.kubectl.run import Kubectl, find_kubectls
from tests.conftest import eventually as eventually
from tests.gateway.support import Hub, real_monotonic


@pytest.fixture
async def hub(tmp_path):
    async with Hub(lambda: datetime.now(UTC), tmp_path, real_monotonic).running() as running:
        yield running


@pytest.fixture
async def front(hub, tmp_path):
    async with Front(hub, tmp_path).running() as running:
        yield running


@pytest.fixture(params=find_kubectls(), ids=lambda path: f"{path.parent.name}-{path.name}")
async def kubectl(request, front, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    made = Kubectl(request.param, front.url, home, front.ca_file)
    await made.find_minor()
    return made
