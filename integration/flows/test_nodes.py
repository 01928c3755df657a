"""Nodes through the whole hub: kubectl and the CLI, identity over a rename and a restart of the registry, clones, and who sees what."""

from __future__ import annotations

import asyncio
import json

import pytest

from integration.harness.hub import eventually

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(300)]

ONE = {"machineID": "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "systemUUID": "ec2a1b3c-7f10-4a57-9d5e-0a1b2c3d4e5f"}
CLONE = {"machineID": "a1b2c3d4e5f60718293a4b5c6d7e8f90", "systemUUID": ""}
NODES = "nodes.management.herdsman.dev"


async def register(admin, name, boot, ids, **labels) -> None:
    """As a kubelet does, which says all of it at once."""
    blank = dict.fromkeys(
        ("kernelVersion", "osImage", "containerRuntimeVersion", "kubeProxyVersion", "operatingSystem", "architecture"),
        "",
    )
    # Unknown readiness would be what the node controller makes of it later; for as long as a test lasts it is Ready.
    ready = {
        "type": "Ready",
        "status": "True",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    node = {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "status": {"nodeInfo": {**blank, "kubeletVersion": "v1.36.1", "bootID": boot, **ids}, "conditions": [ready]},
    }  # fmt: skip
    answer = await admin.kubectl("local", "create", "-f", "-", stdin=json.dumps(node).encode())
    assert answer.code == 0, answer.err


async def status_of(person, name) -> dict:
    answer = await person.kubectl("herdsman", "get", NODES, name, "-o", "json")
    return json.loads(answer.out)["status"] if answer.code == 0 else {}


@pytest.fixture
async def admin(hub):
    admin = await hub.admin()
    yield admin
    await admin.kubectl("local", "delete", "node", "lab-1", "lab-2", "lab-3", "--ignore-not-found")


async def test_a_machine_keeps_its_identity_over_a_rename_and_a_killed_registry(hub, admin):
    await register(admin, "lab-1", "boot-1", ONE, zone="lab")
    before = await eventually(lambda: status_of(admin, "local.lab-1"), 30)
    await admin.sees("local", "delete", "node", "lab-1")

    async def is_gone() -> bool:
        return not await status_of(admin, "local.lab-1")

    await eventually(is_gone, 30)
    pid = hub.kill("node_registry")

    async def is_back() -> bool:
        return hub.pids().get("node_registry") not in (None, pid)

    await eventually(is_back, 30)
    await hub.wait_ready()
    await register(admin, "lab-2", "boot-2", ONE, zone="lab")
    after = await eventually(lambda: status_of(admin, "local.lab-2"), 60)
    assert (after["machine"], after["formerNames"], after["reboots"]) == (before["machine"], ["lab-1"], 1)
    history = await admin.must("node", "history", "lab-2", "--cluster", "local")
    assert [line in history for line in ("lab-1 registered", "removed", "lab-2 registered", "boot-2")] == [True] * 4
    assert "local.lab-2" in await admin.must("node", "list", "-l", "zone=lab", "-o", "wide")
    assert "MACHINE" in await admin.sees("herdsman", "get", NODES, "-l", "zone=lab", "-o", "wide")


async def test_a_clone_is_shown_to_who_sees_the_cluster_and_strangers_get_nothing(hub, admin):
    await register(admin, "lab-1", "boot-a", CLONE)
    await register(admin, "lab-3", "boot-b", CLONE)

    async def shown() -> str:
        return await admin.must("node", "show", "local.lab-1")

    async def is_shown() -> bool:
        return "local.lab-3" in (await shown() if await status_of(admin, "local.lab-1") else "")

    await eventually(is_shown, 30)
    assert "ClonedIdentity" in await shown()
    assert "IdentityCollision" in await admin.sees("herdsman", "get", NODES)
    stranger = await hub.person("nodeless")
    for command in (("show", "local.lab-1"), ("history", "local.lab-1"), ("list",)):
        answer = await stranger.herdsman("node", *command)
        assert "lab-3" not in answer.out + answer.err
        assert (answer.code, answer.out) in ((4, ""), (3, ""), (0, "")), answer
    await admin.must("grant", "--user", "nodeless", "--role", "cluster-viewer", "--cluster", "local")
    await asyncio.sleep(0)
    assert "local.lab-3" in (await stranger.must("node", "show", "local.lab-1"))
