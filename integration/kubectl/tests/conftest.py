"""A gateway with a stand-in front door, and every kubectl that can be had."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from integration.harness.kubectls import fetch_debian_kubectl, find_kubectls
from integration.kubectl.front import Front
from integration.kubectl.run import Kubectl
from libs.common import errors
from tests.gateway.support import Hub, real_monotonic


@pytest.fixture
async def hub(tmp_path):
    async with Hub(lambda: datetime.now(UTC), tmp_path, real_monotonic).running() as running:
        yield running


@pytest.fixture
async def front(hub, tmp_path):
    async with Front(hub, tmp_path).running() as running:
        yield running


@pytest.fixture(params=[*find_kubectls(), "debian"], ids=lambda path: "-".join(str(path).split("/")[-3:]))
async def kubectl(request, front, tmp_path):
    try:
        binary = await fetch_debian_kubectl() if request.param == "debian" else request.param
    except errors.NotFound as exc:
        pytest.skip(exc.message)
    home = tmp_path / "home"
    home.mkdir()
    made = Kubectl(binary, front.url, home, front.ca_file)
    await made.find_minor()
    return made
