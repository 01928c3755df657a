"""Namespaces of the cluster, as the hub should know them: which there are, which project they are marked with, what of its quota they use.

Namespaces are seen by their metadata alone, and of ResourceQuotas those that the hub made. A namespace that comes or changes hands
is told at once, one that goes within a second; what is used, every ten at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgpack

from libs.common.bus.base import Bus
from libs.common.contracts import subjects
from libs.common.contracts.messages import NamespaceObservation, NamespacesObserved
from libs.common.kube.client import KubeClient
from libs.common.kube.reflector import Reflector
from services.agent.owned import SELECTOR
from services.agent.publisher import Publisher, follow, render_listing

NAMESPACES_PATH, QUOTAS_PATH = "/api/v1/namespaces", "/api/v1/resourcequotas"
PROJECT_UID = "management.herdsman.dev/project-uid"
"""Annotation on a namespace: the uid of the project that it is in."""
QUOTA_NAME = "herdsman-project"
PUBLISH_FAILED = "namespaces_publish_failed"
MAX_RESOURCES = 64
COALESCE_S = 0.2
"""Shorter than for what only passes by: whoever has a namespace made is answered when the hub has heard of it."""


class NamespaceObserver:
    """Where the agent may not read quotas, namespaces are told without what they use."""

    def __init__(
        self, client: KubeClient, bus: Bus, cluster_uid: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._namespaces = Reflector(client, NAMESPACES_PATH, metadata_only=True)
        self._quotas = Reflector(client, QUOTAS_PATH, selector=SELECTOR)
        self._publisher = Publisher(
            bus, subjects.observation(cluster_uid, "namespaces"), render_messages, PUBLISH_FAILED, monotonic, COALESCE_S
        )
        self._seen: dict[str, tuple[str, str, bool]] = {}
        self._used: dict[str, dict[str, str]] = {}

    def reconnected(self) -> None:
        """The bus is back: the hub may have missed anything."""
        self._publisher.repeat()

    async def run(self) -> None:
        """Watch and publish, for ever."""
        async with asyncio.TaskGroup() as tasks:
            namespaces = follow(self._namespaces, self._take, self._drop, self._keep)
            tasks.create_task(namespaces, name="namespaces watch")
            quotas = follow(self._quotas, self._take_quota, self._drop_quota, self._keep_quotas)
            tasks.create_task(quotas, name="quotas watch")
            tasks.create_task(self._publisher.run(), name="namespaces publish")

    def _take(self, namespace: Mapping[str, Any]) -> str:
        metadata = namespace["metadata"]
        project = str((metadata.get("annotations") or {}).get(PROJECT_UID) or "")[:64]
        name = str(metadata["name"])
        self._seen[name] = (str(metadata.get("uid") or ""), project, bool(metadata.get("deletionTimestamp")))
        self._tell(name, soon=True)
        return name

    def _drop(self, namespace: Mapping[str, Any]) -> None:
        name = namespace["metadata"]["name"]
        self._seen.pop(name, None)
        self._publisher.drop(name)

    def _keep(self, listing: set[str]) -> None:
        self._seen = {name: fact for name, fact in self._seen.items() if name in listing}
        self._publisher.keep(listing)

    def _take_quota(self, quota: Mapping[str, Any]) -> str:
        if quota["metadata"]["name"] != QUOTA_NAME:
            return ""
        used = (quota.get("status") or {}).get("used") or {}
        namespace = str(quota["metadata"]["namespace"])
        self._set_used(namespace, {str(k)[:253]: str(v)[:64] for k, v in sorted(used.items())[:MAX_RESOURCES]})
        return namespace

    def _drop_quota(self, quota: Mapping[str, Any]) -> None:
        if quota["metadata"]["name"] == QUOTA_NAME:
            self._set_used(quota["metadata"]["namespace"], {})

    def _keep_quotas(self, namespaces: set[str]) -> None:
        for gone in self._used.keys() - namespaces:
            self._set_used(gone, {})

    def _set_used(self, namespace: str, used: dict[str, str]) -> None:
        if used:
            self._used[namespace] = used
        else:
            self._used.pop(namespace, None)
        self._tell(namespace, soon=False)

    def _tell(self, name: str, *, soon: bool) -> None:
        fact = self._seen.get(name)
        if fact is not None:
            self._publisher.put(name, pack(fact, self._used.get(name, {})), soon=soon)


def pack(fact: tuple[str, str, bool], used: Mapping[str, str]) -> bytes:
    """What the hub should know of a namespace: equal bytes mean that nothing changed."""
    packed: bytes = msgpack.packb((*fact, dict(used)))
    return packed


def render_messages(entries: Mapping[str, bytes], complete: bool) -> list[NamespacesObserved]:
    """Messages that each fit."""

    def render(names: list[str]) -> NamespacesObserved:
        return NamespacesObserved(namespaces=[_unpack(name, entries[name]) for name in names])

    return render_listing(entries, render, complete=complete)


def _unpack(name: str, packed: bytes) -> NamespaceObservation:
    uid, project, deleting, used = msgpack.unpackb(packed)
    return NamespaceObservation(name=name, uid=uid, project=project, deleting=deleting, used=used)
