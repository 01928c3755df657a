"""Nodes of the cluster, as the hub should know them: a listing, then changes, coalesced; complete again whenever something may be lost.

Messages to the hub are heard at most once, so a complete listing goes out at start, after each reconnect and relist, when a node
is gone, and now and then anyway. What is kept per node is its packed observation, about a kilobyte.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import structlog

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts import subjects
from libs.common.contracts.messages import NodeObservation, NodesObserved
from libs.common.kube.client import KubeClient
from libs.common.kube.reflector import Changed, Deleted, Listed, Reflector

NODES_PATH = "/api/v1/nodes"
PAGE = 50
"""Node objects carry their images: 50 kB each is common, so pages are small."""
COALESCE_S = 1.0
COMPLETE_EVERY_S = 600.0
CHUNK_BYTES = 180_000
"""Below the 256 KiB that an agent may publish at once, with room for names."""
RETRY_S = 5.0
PUBLISH_FAILED = "nodes_publish_failed"
log = structlog.get_logger(__name__)

_ROLE = "node-role.kubernetes.io/"


class NodeObserver:
    """`count` is None until the first complete listing."""

    def __init__(
        self, client: KubeClient, bus: Bus, cluster_uid: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reflector = Reflector(client, NODES_PATH, page=PAGE)
        self._bus = bus
        self._subject = subjects.observation(cluster_uid, "nodes")
        self._monotonic = monotonic
        self._nodes: dict[str, bytes] = {}
        self._listing: set[str] = set()
        self._listed = False
        self._changed: set[str] = set()
        self._complete_due = True
        self._complete_at = 0.0
        self._wake = asyncio.Event()

    @property
    def count(self) -> int | None:
        return len(self._nodes) if self._listed else None

    def reconnected(self) -> None:
        """The bus is back: the hub may have missed anything."""
        self._complete_due = True
        self._wake.set()

    async def run(self) -> None:
        """Watch and publish, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch(), name="nodes watch")
            tasks.create_task(self._publish(), name="nodes publish")

    async def _watch(self) -> None:
        async for seen in self._reflector.run():
            if isinstance(seen, Listed):
                self._take_page(seen)
            elif isinstance(seen, Changed):
                self._take(seen.object)
            elif isinstance(seen, Deleted):
                self._nodes.pop(seen.object["metadata"]["name"], None)
                self._complete_due = True
            self._wake.set()

    def _take_page(self, page: Listed) -> None:
        if page.first:
            self._listing = set()
        for item in page.items:
            self._listing.add(item["metadata"]["name"])
            self._take(item)
        if page.last:
            for gone in self._nodes.keys() - self._listing:
                del self._nodes[gone]
            self._listing = set()
            self._listed = self._complete_due = True

    def _take(self, node: Mapping[str, Any]) -> None:
        name, packed = node["metadata"]["name"], pack_node(node)
        if self._nodes.get(name) != packed:
            self._nodes[name] = packed
            self._changed.add(name)

    async def _publish(self) -> None:
        while True:
            try:
                async with asyncio.timeout(
                    max(0.0, self._complete_at - self._monotonic()) if self._complete_at else None
                ):
                    await self._wake.wait()
            except TimeoutError:
                self._complete_due = True
            self._wake.clear()
            if not self._listed or not (self._complete_due or self._changed):
                continue
            if not self._bus.connected:
                continue  # `reconnected` wakes us, with a complete listing
            try:
                await self._send()
            except errors.HerdsmanError as exc:
                self._complete_due = True
                self._complete_at = self._monotonic() + RETRY_S * random.uniform(0.5, 1.5)
                log.warning(PUBLISH_FAILED, error=exc.message)
            await asyncio.sleep(COALESCE_S * random.uniform(1.0, 1.5))

    async def _send(self) -> None:
        complete, self._complete_due = self._complete_due, False
        names = sorted(self._nodes) if complete else sorted(self._changed & self._nodes.keys())
        self._changed.clear()
        for message in chunk_observations({name: self._nodes[name] for name in names}, complete=complete):
            await self._bus.publish(self._subject, message)
        if complete:
            self._complete_at = self._monotonic() + COMPLETE_EVERY_S * random.uniform(0.8, 1.2)


def chunk_observations(
    nodes: Mapping[str, bytes], *, complete: bool, limit_bytes: int = CHUNK_BYTES
) -> list[NodesObserved]:
    """Messages that each fit. The last of a complete listing closes it: it names what the others held."""
    chunks: list[list[str]] = [[]]
    size = 0
    for name, packed in nodes.items():
        if chunks[-1] and size + len(packed) > limit_bytes:
            chunks.append([])
            size = 0
        chunks[-1].append(name)
        size += len(packed)
    if complete and len(chunks) > 1:
        # The names of thousands take room of their own: they travel with no bodies.
        chunks.append([])
    elif not complete and not chunks[-1]:
        return []
    messages = [NodesObserved(nodes=[_unpack(name, nodes[name]) for name in chunk]) for chunk in chunks]
    if complete:
        messages[-1].complete = True
        if len(chunks) > 1:
            messages[-1].present = list(nodes)
    return messages


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
