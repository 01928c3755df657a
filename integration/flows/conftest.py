"""Two hubs for all flows: one without a cluster, one with the local cluster that `herdsman up` brings up (with pods where it can)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from integration.harness.hub import Hub, eventually
from integration.kubelab import binaries
from libs.common import errors


async def wait_active(hub: Hub, cluster: str) -> None:
    """Until the cluster is Active and has the hub's roles; the administrator's kubeconfig has its context then."""
    admin = await hub.admin()

    async def is_active() -> bool:
        applied = 'jsonpath={.status.phase}/{.status.conditions[?(@.type=="Applied")].status}'
        answer = await admin.kubectl("herdsman", "get", "cluster", cluster, "-o", applied)
        return answer.out == "Active/True"

    await eventually(is_active, 120)
    await admin.fetch_kubeconfig()


@pytest.fixture(scope="package")
def needs_kubernetes() -> None:
    try:
        binaries.find(binaries.PLAIN)
    except errors.NotFound as exc:
        pytest.skip(f"{exc}: make kubelab")


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def bare_hub(tmp_path_factory) -> AsyncIterator[Hub]:
    """A hub without clusters."""
    hub = Hub(tmp_path_factory.mktemp("bare"), "--no-local-cluster")
    await hub.start()
    yield hub
    await hub.stop()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def hub(needs_kubernetes, tmp_path_factory) -> AsyncIterator[Hub]:
    """A hub with the cluster `local`, active."""
    made = Hub(tmp_path_factory.mktemp("hub"))
    await made.start()
    await wait_active(made, "local")
    yield made
    await made.stop()
