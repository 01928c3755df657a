"""The disk of a running hub fills up: clear refusals, reads and clusters go on, nothing acknowledged is lost, and it comes back by itself.

/readyz stays 200 meanwhile: who is not ready is taken out of service, and that would turn "no changes for now" into "no access
to any cluster". What a person needs to know is said by `herdsman up`, by each refused write, and by `herdsman doctor`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from integration.flows.conftest import wait_active
from integration.flows.outside import Agent, make_cluster, running
from integration.harness.hub import Hub, eventually, run_program
from integration.kubelab.cluster import Cluster

pytestmark = [
    pytest.mark.kubelab,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root"),
    pytest.mark.timeout(180),
]
BACK_S = 15.0


@pytest_asyncio.fixture(loop_scope="package")
async def small(needs_kubernetes, tmp_path) -> AsyncIterator[tuple[Hub, Path]]:
    """A hub whose data folder is a small disk, with the cluster `outside`, whose own data lie elsewhere."""
    hub = Hub(tmp_path / "hub", "--no-local-cluster")
    hub.data.mkdir()
    mounted = await run_program("mount", "-t", "tmpfs", "-o", "size=768m", "tmpfs", hub.data)
    if mounted.code:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.err.strip()}")
    cluster = None
    try:
        cluster = await Cluster.up("outside", tmp_path / "clusters", minimal=True)
        await hub.start()
        async with running(Agent(hub, tmp_path / "agent", cluster.kubeconfig), await make_cluster(hub, "outside")):
            await wait_active(hub, "outside")
            yield hub, hub.data / "ballast"
    finally:
        await hub.stop()
        if cluster is not None:
            await cluster.down(delete=True)
        assert (await run_program("umount", "-l", hub.data)).code == 0


async def test_a_full_disk_refuses_writes_clearly_serves_everything_else_and_heals_by_itself(small):
    hub, ballast = small
    admin = await hub.admin()
    acknowledged = []

    async def create(name: str) -> str:
        """ "" when it was acknowledged, else what kubectl says."""
        began = time.monotonic()
        answer = await admin.kubectl("herdsman", "create", "-f", "-", stdin=large_project(name))
        assert time.monotonic() - began < 12, answer.err
        if answer.code == 0:
            acknowledged.append(name)
        return answer.err

    assert await create("before") == ""
    fill(ballast)
    refused = [said for number in range(4) if (said := await create(f"full-{number}"))]
    assert refused
    assert all("its disk is probably full" in said for said in refused), refused
    assert all("(ServiceUnavailable)" in said for said in refused), refused
    assert not any("unexpected" in said for said in refused)
    await admin.sees("outside", "get", "namespaces", "--request-timeout=5s")
    assert "project.management.herdsman.dev/before" in await admin.sees("herdsman", "get", "projects", "-o", "name")
    assert (await hub.get("/readyz"))[0] == 200

    async def is_told() -> bool:
        return "the store takes no writes (no space left on device)" in hub.log

    await eventually(is_told, 10)
    assert "ended with" not in hub.log, hub.log

    ballast.unlink()
    freed = time.monotonic()
    number = 0
    while await create(f"after-{number}"):
        number += 1
        assert time.monotonic() - freed < BACK_S, hub.log
    await eventually(lambda: _said(hub, "takes them again"), 10)
    assert hub.log.count("the store takes no writes") == 1, "each thing is said once"
    kept = {line.rpartition("/")[2] for line in (await admin.sees("herdsman", "get", "projects", "-o", "name")).split()}
    assert set(acknowledged) <= kept
    await admin.sees("outside", "get", "namespaces")


def large_project(name: str) -> bytes:
    """Larger than what is left of a page in the last block, so that a full disk is noticed at once."""
    metadata = {"name": name, "annotations": {"example.org/ballast": "x" * 20_000}}
    document = {"apiVersion": "management.herdsman.dev/v1", "kind": "Project", "metadata": metadata, "spec": {}}
    return json.dumps(document).encode()


async def _said(hub: Hub, text: str) -> bool:
    return text in hub.log


def fill(file: Path) -> None:
    """Write until nothing more fits."""
    with file.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(65536))
        except OSError:
            return
