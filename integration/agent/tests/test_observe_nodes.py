"""Lives of nodes as a real API server shows them, through the real observer into the real registry: rename, registering anew, reboot, clones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from integration.agent.looking import Looker, eventually
from libs.common.bus.base import Message
from libs.common.bus.memory import MemoryBus
from libs.common.bus.wire import parse
from libs.common.contracts import subjects
from libs.common.contracts.messages import NodesObserved
from libs.common.kube.client import KubeClient
from services.agent.observe_nodes import NodeObserver
from tests.conftest import Clock
from tests.node_registry.made import EAST, Registry, running

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(180)]

ONE = {
    "machineID": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "systemUUID": "ec2a1b3c-7f10-4a57-9d5e-0a1b2c3d4e5f",
    "bootID": "boot-1",
}


class Lab:
    """Registers nodes as a kubelet does. `heard`: what the observer said."""

    def __init__(self, looker: Looker, registry: Registry, observer: NodeObserver) -> None:
        self.looker, self.registry, self.observer = looker, registry, observer
        self.heard: list[NodesObserved] = []
        self.inbox: asyncio.Queue[NodesObserved] = asyncio.Queue()

    async def register(self, name: str, info: dict[str, str], **labels: str) -> None:
        await self.looker.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
        await self.report(name, info)

    async def report(self, name: str, info: dict[str, str], beat: str = "2026-01-01T00:00:00Z") -> None:
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", "lastHeartbeatTime": beat,
                 "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
        blank = dict.fromkeys(
            (
                "kernelVersion",
                "osImage",
                "containerRuntimeVersion",
                "kubeProxyVersion",
                "operatingSystem",
                "architecture",
            ),
            "",
        )
        status = {"nodeInfo": {**blank, "kubeletVersion": "v1.36.1", **info}, "conditions": [ready]}
        await self.looker.run(
            "patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
        )

    async def remove(self, name: str) -> None:
        await self.looker.run("delete", "node", name, "--ignore-not-found")

    def facts(self, name: str) -> Any:
        return self.registry.view.facts.get(f"east.{name}")

    async def take(self) -> None:
        while True:
            await self.registry.observe(await self.inbox.get())
            await self.registry.collide()


@pytest.fixture
async def lab(client: KubeClient, looker: Looker) -> AsyncIterator[Lab]:
    clock, bus = Clock(), MemoryBus()
    async with running(clock) as registry:
        lab = Lab(looker, registry, NodeObserver(client, bus, EAST.uid))

        async def hear(message: Message) -> None:
            lab.heard.append(parse(NodesObserved, message.data))
            lab.inbox.put_nowait(lab.heard[-1])

        async with bus.listen(subjects.observation(EAST.uid, "nodes"), hear):
            tasks = [asyncio.create_task(lab.observer.run()), asyncio.create_task(lab.take())]
            try:
                await eventually(lambda: lab.heard)
                yield lab
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for name in ("w1", "w2", "w3"):
                    await lab.remove(name)


async def test_a_machine_is_followed_through_reboot_registering_anew_and_a_new_name(lab: Lab) -> None:
    await lab.register("w1", ONE, zone="a")
    await eventually(lambda: lab.facts("w1") and lab.facts("w1").boot_id == "boot-1")
    machine = lab.facts("w1").machine

    await lab.report("w1", {**ONE, "bootID": "boot-2"})
    await eventually(lambda: lab.facts("w1").reboots == 1)

    await lab.remove("w1")
    await lab.register("w1", {**ONE, "bootID": "boot-2"})
    await eventually(lambda: lab.facts("w1") and lab.facts("w1").node_uid and lab.facts("w1").boot_id == "boot-2")

    await lab.remove("w1")
    await eventually(lambda: lab.facts("w1") is None)
    await lab.looker.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w2"}})
    await lab.report("w2", {**ONE, "bootID": "boot-3"})
    await eventually(lambda: lab.facts("w2") and lab.facts("w2").boot_id == "boot-3")
    renamed = await lab.registry.node("east.w2")
    history = await lab.registry.history("east.w2")
    assert renamed.status.machine == machine, [c.to_document() for c in history.changes]
    assert renamed.status.former_names == ["w1"]
    assert renamed.status.reboots == 2
    assert [c.after for c in history.changes if c.what == "node"][-1] == "w2 registered"


async def test_a_clone_is_shown_on_both_and_a_heartbeat_is_no_news(lab: Lab) -> None:
    disk = {"machineID": ONE["machineID"]}
    await lab.register("w1", {**disk, "systemUUID": "", "bootID": "b1"})
    await lab.register("w3", {**disk, "systemUUID": "", "bootID": "b3"})
    await eventually(
        lambda: lab.facts("w1") and lab.facts("w1").collision and lab.facts("w3") and lab.facts("w3").collision
    )
    assert '"w3"' in lab.facts("w1").collision
    assert lab.facts("w1").machine != lab.facts("w3").machine
    said = len(lab.heard)
    for minute in range(1, 4):
        await lab.report("w1", {**disk, "systemUUID": "", "bootID": "b1"}, beat=f"2026-01-01T00:0{minute}:00Z")
    await lab.looker.run("label", "node", "w3", "after=heartbeats")
    await eventually(lambda: len(lab.heard) > said)
    assert [o.name for m in lab.heard[said:] for o in m.nodes] == ["w3"]
    await lab.remove("w3")
    await eventually(lambda: lab.facts("w3") is None and not lab.facts("w1").collision)
