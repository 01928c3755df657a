"""Nodes of the cluster, as the hub should know them: a listing, then changes (`publisher`).

What is kept per node is its packed observation, about a kilobyte.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from libs.common.bus.base import Bus
from libs.common.contracts import subjects
from libs.common.contracts.messages import NodeObservation, NodesObserved
from libs.common.kube.client import KubeClient
from libs.common.kube.reflector import Reflector
from services.agent.publisher import CHUNK_BYTES, Publisher, follow, render_listing

NODES_PATH = "/api/v1/nodes"
PAGE = 50
"""Node objects carry their images: 50 kB each is common, so pages are small."""
PUBLISH_FAILED = "nodes_publish_failed"

_ROLE = "node-role.kubernetes.io/"


class NodeObserver:
    """`count` is None until the first complete listing."""

    def __init__(
        self, client: KubeClient, bus: Bus, cluster_uid: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reflector = Reflector(client, NODES_PATH, page=PAGE)
        self._publisher = Publisher(
            bus, subjects.observation(cluster_uid, "nodes"), lambda nodes, complete: chunk_observations(nodes, complete=complete),
            PUBLISH_FAILED, monotonic,
        )  # fmt: skip

    @property
    def count(self) -> int | None:
        return len(self._publisher.entries) if self._publisher.ready else None

    def reconnected(self) -> None:
        """The bus is back: the hub may have missed anything."""
        self._publisher.repeat()

    async def run(self) -> None:
        """Watch and publish, for ever."""
        async with asyncio.TaskGroup() as tasks:
            watching = follow(self._reflector, self._take, self._drop, self._publisher.keep)
            tasks.create_task(watching, name="nodes watch")
            tasks.create_task(self._publisher.run(), name="nodes publish")

    def _take(self, node: Mapping[str, Any]) -> str:
        name = str(node["metadata"]["name"])
        self._publisher.put(name, pack_node(node))
        return name

    def _drop(self, node: Mapping[str, Any]) -> None:
        self._publisher.drop(node["metadata"]["name"])


def chunk_observations(
    nodes: Mapping[str, bytes], *, complete: bool, limit_bytes: int = CHUNK_BYTES
) -> list[NodesObserved]:
    """Messages that each fit."""

    def render(names: list[str]) -> NodesObserved:
        return NodesObserved(nodes=[_unpack(name, nodes[name]) for name in names])

    return render_listing(nodes, render, complete=complete, limit_bytes=limit_bytes)


def _unpack(name: str, packed: bytes) -> NodeObservation:
    uid, status = msgpack.unpackb(packed)
    return NodeObservation(name=name, uid=uid, status=status)


def pack_node(node: Mapping[str, Any]) -> bytes:
    """What the hub should know of a node, packed: equal bytes mean that nothing worth telling changed."""
    packed: bytes = msgpack.packb((str(node["metadata"].get("uid") or ""), render_node(node)))
    return packed


def render_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `NodeStatus` for a Node object. Times of kubelet's heartbeats are left out: they change without news."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    info = status.get("nodeInfo") or {}
    conditions = sorted(status.get("conditions") or (), key=lambda c: str(c.get("type")))
    ready = next((c.get("status") for c in conditions if c.get("type") == "Ready"), None)
    roles = sorted(
        {key.removeprefix(_ROLE) for key in metadata.get("labels") or {} if key.startswith(_ROLE) and key != _ROLE}
    )
    addresses = status.get("addresses") or ()
    return {
        "ready": {"True": True, "False": False}.get(str(ready)),
        "unschedulable": bool(spec.get("unschedulable")),
        "roles": roles,
        "kubeletVersion": str(info.get("kubeletVersion") or ""),
        "osImage": str(info.get("osImage") or ""),
        "kernelVersion": str(info.get("kernelVersion") or ""),
        "containerRuntime": str(info.get("containerRuntimeVersion") or ""),
        "architecture": str(info.get("architecture") or ""),
        "internalIP": next((str(a.get("address")) for a in addresses if a.get("type") == "InternalIP"), ""),
        "capacity": {str(k): str(v) for k, v in (status.get("capacity") or {}).items()},
        "allocatable": {str(k): str(v) for k, v in (status.get("allocatable") or {}).items()},
        "conditions": [_render_condition(c) for c in conditions if c.get("lastTransitionTime")],
    }


def _render_condition(condition: Mapping[str, Any]) -> dict[str, Any]:
    state = str(condition.get("status"))
    return {
        "type": str(condition.get("type")),
        "status": state if state in ("True", "False") else "Unknown",
        "reason": str(condition.get("reason") or ""),
        "message": str(condition.get("message") or "")[:1024],
        "lastTransitionTime": str(condition["lastTransitionTime"]),
    }
