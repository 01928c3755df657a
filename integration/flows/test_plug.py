"""Pull the plug: any one process dies, and the hub goes on; nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import time

import pytest

from integration.harness.hub import eventually

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package")]
PROCESSES = (
    "nats", "identity", "authz", "project", "node_registry", "cluster_controller", "gateway", "auth_proxy", "agent",
)  # fmt: skip
BACK_S = 5.0


@pytest.mark.parametrize("name", PROCESSES)
async def test_kubectl_works_again_within_five_seconds_after_kill_9_of(hub, name):
    admin = await hub.admin()
    label = f"killed-{name.replace('_', '-')}"
    made = await admin.kubectl("herdsman", "apply", "-f", "-", stdin=project(label))
    assert made.code == 0, made.err
    pid = hub.kill(name)
    killed_at = time.monotonic()

    async def works() -> bool:
        through = await admin.kubectl("local", "get", "namespaces", "--request-timeout=2s")
        kept = await admin.kubectl("herdsman", "get", "project", label, "--request-timeout=2s", "-o", "name")
        return through.code == 0 and kept.code == 0 and hub.pids().get(name) not in (None, pid)

    await eventually(works, 20)
    took = time.monotonic() - killed_at
    assert took <= BACK_S, f"kubectl worked again only after {took:.1f} s"
    await hub.wait_ready(10)
    gone = await admin.kubectl("herdsman", "delete", "project", label)
    assert gone.code == 0, gone.err


async def test_nothing_acknowledged_is_lost_while_the_state_server_dies_again_and_again(hub):
    admin = await hub.admin()
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            answer = await admin.kubectl("herdsman", "create", "-f", "-", stdin=project(f"lost-{number}"), timeout_s=40)
            if answer.code == 0:
                acknowledged.append(f"lost-{number}")

    writing = asyncio.create_task(write(), name="writer")
    for _ in range(3):
        await asyncio.sleep(2)
        hub.kill("nats")
        await hub.wait_ready(30)
    stop.set()
    await writing
    assert len(acknowledged) > 5
    kept = set((await admin.sees("herdsman", "get", "projects", "-o", "name")).split())
    assert {f"project.management.herdsman.dev/{name}" for name in acknowledged} <= kept
    await admin.sees("herdsman", "delete", "projects", "--all")


def project(name: str) -> bytes:
    return (
        f'{{"apiVersion":"management.herdsman.dev/v1","kind":"Project","metadata":{{"name":"{name}"}},"spec":{{}}}}'
    ).encode()
