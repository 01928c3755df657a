"""Namespaces of the cluster, as the hub should know them: which there are, which project they are marked with, what of its quota they use.

Namespaces are seen by their metadata alone, and of ResourceQuotas those that the hub made. A namespace that comes, goes or changes hands
is told within a second; what is used, every ten at most.
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
from libs.common.kube.reflector import Changed, Deleted, Listed, Reflector
from services.agent.owned import SELECTOR
from services.agent.publisher import Publisher, chunk

NAMESPACES_PATH, QUOTAS_PATH = "/api/v1/namespaces", "/api/v1/resourcequotas"
PROJECT_UID = "management.herdsman.dev/project-uid"
"""Annotation on a namespace: the uid of the project that it is in."""
QUOTA_NAME = "herdsman-project"
PUBLISH_FAILED = "namespaces_publish_failed"
MAX_RESOURCES = 64


class NamespaceObserver:
    """Where the agent may not read quotas, namespaces are told without what they use."""

    def __init__(
        self, client: KubeClient, bus: Bus, cluster_uid: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._namespaces = Reflector(client, NAMESPACES_PATH, metadata_only=True)
        self._quotas = Reflector(client, QUOTAS_PATH, selector=SELECTOR)
        self._publisher = Publisher(
            bus, subjects.observation(cluster_uid, "namespaces"), render_messages, PUBLISH_FAILED, monotonic
        )
        self._seen: dict[str, tuple[str, str, bool]] = {}
        self._used: dict[str, dict[str, str]] = {}

    def reconnected(self) -> None:
        """The bus is back: the hub may have missed anything."""
        self._publisher.repeat()

    async def run(self) -> None:
        """Watch and publish, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_namespaces(), name="namespaces watch")
            tasks.create_task(self._watch_quotas(), name="quotas watch")
            tasks.create_task(self._publisher.run(), name="namespaces publish")

    async def _watch_namespaces(self) -> None:
        listing: set[str] = set()
        async for seen in self._namespaces.run():
            if isinstance(seen, Listed):
                listing = set() if seen.first else listing
                for item in seen.items:
                    listing.add(item["metadata"]["name"])
                    self._take(item)
                if seen.last:
                    self._seen = {name: fact for name, fact in self._seen.items() if name in listing}
                    self._publisher.keep(listing)
            elif isinstance(seen, Changed):
                self._take(seen.object)
            elif isinstance(seen, Deleted):
                name = seen.object["metadata"]["name"]
                self._seen.pop(name, None)
                self._publisher.drop(name)

    async def _watch_quotas(self) -> None:
        listing: set[str] = set()
        async for seen in self._quotas.run():
            if isinstance(seen, Listed):
                listing = set() if seen.first else listing
                for item in seen.items:
                    listing |= self._take_quota(item)
                if seen.last:
                    for gone in self._used.keys() - listing:
                        self._set_used(gone, {})
            elif isinstance(seen, Changed):
                self._take_quota(seen.object)
            elif isinstance(seen, Deleted) and seen.object["metadata"]["name"] == QUOTA_NAME:
                self._set_used(seen.object["metadata"]["namespace"], {})

    def _take(self, namespace: Mapping[str, Any]) -> None:
        metadata = namespace["metadata"]
        project = str((metadata.get("annotations") or {}).get(PROJECT_UID) or "")[:64]
        name = metadata["name"]
        self._seen[name] = (str(metadata.get("uid") or ""), project, bool(metadata.get("deletionTimestamp")))
        self._tell(name, soon=True)

    def _take_quota(self, quota: Mapping[str, Any]) -> set[str]:
        if quota["metadata"]["name"] != QUOTA_NAME:
            return set()
        used = (quota.get("status") or {}).get("used") or {}
        namespace = quota["metadata"]["namespace"]
        self._set_used(namespace, {str(k)[:253]: str(v)[:64] for k, v in sorted(used.items())[:MAX_RESOURCES]})
        return {namespace}

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
    """Messages that each fit. The last of a complete listing closes it: it names what the others held."""
    chunks = chunk(entries, complete=complete)
    messages = [NamespacesObserved(namespaces=[_unpack(name, entries[name]) for name in names]) for names in chunks]
    if complete:
        messages[-1].complete = True
        if len(messages) > 1:
            messages[-1].present = list(entries)
    return messages


def _unpack(name: str, packed: bytes) -> NamespaceObservation:
    uid, project, deleting, used = msgpack.unpackb(packed)
    return NamespaceObservation(name=name, uid=uid, project=project, deleting=deleting, used=used)
