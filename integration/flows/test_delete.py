"""A cluster that is deleted from the hub: its agent removes what it made and says so, and a restart does not bring it back."""

from __future__ import annotations

import asyncio

import pytest

from integration.flows.conftest import wait_active
from integration.harness.hub import Hub, eventually
from integration.kubelab.kubectl import kubectl

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package")]
KINDS = "clusterroles,clusterrolebindings,roles,rolebindings,namespaces,configmaps,secrets,serviceaccounts"


async def test_nothing_is_left_and_it_stays_away(needs_kubernetes, tmp_path):
    hub = Hub(tmp_path)
    await hub.start()
    await wait_active(hub, "local")
    admin = await hub.admin()
    direct = next((hub.data / "kubelab").rglob("kubeconfig"))

    async def ours() -> str:
        answer = await kubectl(direct, "get", KINDS, "-A", "-o", "name")
        assert answer.code == 0, answer.err
        return "\n".join(line for line in answer.out.splitlines() if "herdsman" in line)

    assert "clusterrole.rbac.authorization.k8s.io/herdsman:cluster-viewer" in await ours()
    deleting = asyncio.create_task(admin.must("cluster", "delete", "local", "--yes"), name="delete")
    left = "not looked at"

    async def is_clean() -> bool:
        # `herdsman up` stops the cluster's Kubernetes after the agent is done: look before.
        nonlocal left
        answer = await kubectl(direct, "get", KINDS, "-A", "-o", "name", timeout_s=10)
        if answer.code != 0:
            return True
        left = "\n".join(line for line in answer.out.splitlines() if "herdsman" in line)
        return left == ""

    await eventually(is_clean, 20, every_s=0.05)
    assert left == ""
    await deleting
    assert await admin.sees("herdsman", "get", "clusters", "-o", "name") == ""
    assert (await admin.kubectl("local", "get", "namespaces")).code != 0

    async def is_remembered() -> bool:
        return "stays in" in hub.log

    await eventually(is_remembered, 30)
    await hub.stop()
    await hub.start()

    async def is_said() -> bool:
        return "stays away" in hub.log

    await eventually(is_said, 20)
    assert await admin.sees("herdsman", "get", "clusters", "-o", "name") == ""
    await hub.stop()
