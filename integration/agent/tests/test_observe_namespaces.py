"""What the hub is told of namespaces, from a real API server: which there are, whose they are, what of the project's quota is used."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from integration.agent.looking import Looker, eventually
from libs.common.bus.base import Message
from libs.common.bus.memory import MemoryBus
from libs.common.bus.wire import parse
from libs.common.contracts import subjects
from libs.common.contracts.messages import NamespacesObserved
from libs.common.kube.client import KubeClient
from services.agent.observe_namespaces import PROJECT_UID, QUOTA_NAME, NamespaceObserver
from services.agent.owned import MANAGED_BY, MANAGED_BY_US, PART
from services.project.observed import Observed

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(120)]


MARKED = {MANAGED_BY: MANAGED_BY_US, PART: "projects.shop"}


def namespace(project: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "seen", "annotations": {PROJECT_UID: project}},
    }


def quota(name: str, labels: dict[str, str]) -> dict[str, Any]:
    hard = {"configmaps": "9", "secrets": "5"}
    metadata = {"name": name, "namespace": "seen", "labels": labels}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}


async def test_what_comes_changes_hands_is_used_and_goes_is_told(client: KubeClient, looker: Looker) -> None:
    bus, view = MemoryBus(), Observed()
    heard: list[NamespacesObserved] = []

    async def hear(message: Message) -> None:
        heard.append(parse(NamespacesObserved, message.data))
        view.put("c", heard[-1])

    def seen() -> tuple[str, dict[str, str]]:
        found = view.get("c", "seen")
        return (found.project, found.used) if found is not None else ("", {})

    observer = NamespaceObserver(client, bus, "c")
    async with bus.listen(subjects.observation("c", "namespaces"), hear):
        running = asyncio.create_task(observer.run())
        try:
            await eventually(lambda: view.is_absent("c", "seen"))
            assert heard[0].complete
            assert view.get("c", "kube-system") is not None
            await looker.apply(namespace("uid-1"))
            await eventually(lambda: seen() == ("uid-1", {}), 5)
            assert not heard[-1].complete
            await looker.apply(quota(QUOTA_NAME, MARKED), quota("somebodys", {}))
            await eventually(lambda: seen() == ("uid-1", {"configmaps": "1", "secrets": "0"}), 30)
            await looker.apply(namespace("uid-2"))
            await eventually(lambda: seen()[0] == "uid-2", 5)
            count = len(heard)
            observer.reconnected()
            await eventually(lambda: any(message.complete for message in heard[count:]), 5)
            await looker.run("delete", "namespace", "seen", "--wait=false")
            await eventually(lambda: view.is_absent("c", "seen"))
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
