"""Nodes of the cluster, as the hub should know them: a listing, then changes (`publisher`).

What is kept per node is its packed observation, one or two kilobytes, and its resourceVersion: kubelet's heartbeats change that alone, so it
travels with what is told and is no news by itself. What a node has too much of is cut here, and the hub is told so.
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
from libs.common.contracts.messages.agents import (
    MAX_NODE_ADDRESSES,
    MAX_NODE_CONDITIONS,
    MAX_NODE_LABELS,
    MAX_NODE_RESOURCES,
    MAX_NODE_TAINTS,
)
from libs.common.kube.client import KubeClient
from libs.common.kube.reflector import Reflector
from services.agent.publisher import CHUNK_BYTES, Publisher, follow, render_listing

NODES_PATH = "/api/v1/nodes"
PAGE = 50
"""Node objects carry their images: 50 kB each is common, so pages are small."""
PUBLISH_FAILED = "nodes_publish_failed"

_ROLE = "node-role.kubernetes.io/"
_KNOWN_DOMAINS = ("kubernetes.io", "k8s.io")


class NodeObserver:
    """`count` is None until the first complete listing."""

    def __init__(
        self, client: KubeClient, bus: Bus, cluster_uid: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reflector = Reflector(client, NODES_PATH, page=PAGE)
        self._revisions: dict[str, str] = {}
        self._newest = ""
        self._publisher = Publisher(
            bus, subjects.observation(cluster_uid, "nodes"), self._render, PUBLISH_FAILED, monotonic,
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
            watching = follow(self._reflector, self._take, self._drop, self._keep)
            tasks.create_task(watching, name="nodes watch")
            tasks.create_task(self._publisher.run(), name="nodes publish")

    def _take(self, node: Mapping[str, Any]) -> str:
        name = str(node["metadata"]["name"])
        self._revisions[name] = self._note_revision(node)
        self._publisher.put(name, pack_node(node))
        return name

    def _drop(self, node: Mapping[str, Any]) -> None:
        self._note_revision(node)
        self._revisions.pop(node["metadata"]["name"], None)
        self._publisher.drop(node["metadata"]["name"])

    def _keep(self, names: set[str]) -> None:
        self._revisions = {name: revision for name, revision in self._revisions.items() if name in names}
        self._newest = (
            self._reflector.listed_at
        )  # also when it is lower than before: the cluster was set back to a backup
        self._publisher.keep(names)

    def _note_revision(self, node: Mapping[str, Any]) -> str:
        revision = str(node["metadata"].get("resourceVersion") or "")[:20]
        if revision.isdecimal() and int(revision) > int(self._newest or 0):
            self._newest = revision
        return revision

    def _render(self, nodes: Mapping[str, bytes], complete: bool) -> list[NodesObserved]:
        messages = chunk_observations(nodes, complete=complete, revisions=self._revisions)
        for message in messages:
            message.revision = self._newest
        return messages


def chunk_observations(
    nodes: Mapping[str, bytes], *, complete: bool, limit_bytes: int = CHUNK_BYTES, revisions: Mapping[str, str] | None = None
) -> list[NodesObserved]:  # fmt: skip
    """Messages that each fit."""
    known = revisions or {}

    def render(names: list[str]) -> NodesObserved:
        return NodesObserved(nodes=[_unpack(name, nodes[name], known.get(name, "")) for name in names])

    return render_listing(nodes, render, complete=complete, limit_bytes=limit_bytes)


def _unpack(name: str, packed: bytes, revision: str) -> NodeObservation:
    uid, labels, status = msgpack.unpackb(packed)
    return NodeObservation(name=name, uid=uid, revision=revision, labels=labels, status=status)


def pack_node(node: Mapping[str, Any]) -> bytes:
    """What the hub should know of a node, packed: equal bytes mean that nothing worth telling changed."""
    labels, left_out = render_labels(node["metadata"].get("labels") or {})
    packed: bytes = msgpack.packb((str(node["metadata"].get("uid") or ""), labels, render_node(node, left_out)))
    return packed


def render_labels(labels: Mapping[str, Any]) -> tuple[dict[str, str], int]:
    """The labels that the hub is told, those of Kubernetes itself first, and how many it is not told."""
    chosen = sorted(labels, key=lambda key: (not _is_kubernetes_own(key), key))[:MAX_NODE_LABELS]
    return {key: str(labels[key]) for key in sorted(chosen)}, len(labels) - len(chosen)


def _is_kubernetes_own(key: str) -> bool:
    domain = key.partition("/")[0]
    return "/" in key and any(domain == own or domain.endswith(f".{own}") for own in _KNOWN_DOMAINS)


def render_node(node: Mapping[str, Any], labels_left_out: int = 0) -> dict[str, Any]:
    """The fields of `NodeStatus` for a Node object. Times of kubelet's heartbeats are left out: they change without news."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    info = status.get("nodeInfo") or {}
    labels = metadata.get("labels") or {}
    conditions = sorted(status.get("conditions") or (), key=lambda c: str(c.get("type")))
    ready = next((c.get("status") for c in conditions if c.get("type") == "Ready"), None)
    roles = sorted({key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE) and key != _ROLE})
    addresses, taints = status.get("addresses") or (), spec.get("taints") or ()
    capacity, allocatable = status.get("capacity") or {}, status.get("allocatable") or {}
    left_out = {
        "labels": labels_left_out, "taints": len(taints) - MAX_NODE_TAINTS, "addresses": len(addresses) - MAX_NODE_ADDRESSES,
        "conditions": len(conditions) - MAX_NODE_CONDITIONS, "resources": max(len(capacity), len(allocatable)) - MAX_NODE_RESOURCES,
    }  # fmt: skip
    return {
        "ready": {"True": True, "False": False}.get(str(ready)),
        "unschedulable": bool(spec.get("unschedulable")),
        "roles": roles[:MAX_NODE_LABELS],
        "kubeletVersion": _text(info, "kubeletVersion"),
        "osImage": _text(info, "osImage"),
        "kernelVersion": _text(info, "kernelVersion"),
        "containerRuntime": _text(info, "containerRuntimeVersion"),
        "architecture": _text(info, "architecture"),
        "operatingSystem": _text(info, "operatingSystem"),
        "machineID": _text(info, "machineID"),
        "systemUUID": _text(info, "systemUUID"),
        "bootID": _text(info, "bootID"),
        "providerID": _text(spec, "providerID"),
        "podCIDRs": [str(c)[:64] for c in (spec.get("podCIDRs") or ())[:8]],
        "internalIP": next((str(a.get("address"))[:64] for a in addresses if a.get("type") == "InternalIP"), ""),
        "addresses": [
            {"type": _text(a, "type"), "address": _text(a, "address")} for a in addresses[:MAX_NODE_ADDRESSES]
        ],
        "taints": [
            {"key": _text(t, "key"), "value": _text(t, "value"), "effect": _text(t, "effect")}
            for t in sorted(taints, key=lambda t: (str(t.get("key")), str(t.get("effect"))))[:MAX_NODE_TAINTS]
        ],
        "capacity": _amounts(capacity),
        "allocatable": _amounts(allocatable),
        "conditions": [_render_condition(c) for c in conditions if c.get("lastTransitionTime")][:MAX_NODE_CONDITIONS],
        "leftOut": {what: count for what, count in left_out.items() if count > 0},
    }


def _text(holder: Mapping[str, Any], field: str) -> str:
    return str(holder.get(field) or "")[:512]


def _amounts(amounts: Mapping[str, Any]) -> dict[str, str]:
    return {str(k)[:317]: str(amounts[k])[:64] for k in sorted(amounts)[:MAX_NODE_RESOURCES]}


def _render_condition(condition: Mapping[str, Any]) -> dict[str, Any]:
    state = str(condition.get("status"))
    return {
        "type": _text(condition, "type"),
        "status": state if state in ("True", "False") else "Unknown",
        "reason": _text(condition, "reason"),
        "message": str(condition.get("message") or "")[:256],
        "lastTransitionTime": str(condition["lastTransitionTime"])[:64],
    }
