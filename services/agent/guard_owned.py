"""Watches what we keep in the cluster and the namespaces that it is for, so that a change is put right in seconds and not in minutes.

It only tells `desired` which part to look at; a round that finds nothing wrong writes nothing. Metadata alone is watched, of most
kinds, and nothing is remembered: a watch costs a connection.
"""

from __future__ import annotations

import asyncio

import structlog

from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.kube.discovery import Discovery
from libs.common.kube.objects import Ref, labels_of
from libs.common.kube.reflector import Changed, Deleted, Listed, Reflector
from services.agent.apply import NAMESPACES, Applier
from services.agent.desired import DesiredKeeper
from services.agent.owned import PART, SELECTOR, is_owned

FIND_AGAIN_S = 30.0
"""A kind that the cluster lacked, or would not let us look at, is tried again after so long."""
WATCHED_WHOLE = ("ResourceQuota",)
"""Kinds that change all the time without anybody's doing: the status counts each pod. Whether it is more than that, the object says."""
GUARD_FAILED = "guard_failed"
log = structlog.get_logger(__name__)


class Guard:
    """One watch for namespaces, and one for each kind of which something was ever applied."""

    def __init__(self, client: KubeClient, discovery: Discovery, applier: Applier, desired: DesiredKeeper) -> None:
        self._client = client
        self._discovery = discovery
        self._applier = applier
        self._desired = desired

    async def run(self) -> None:
        """For ever."""
        watched: set[tuple[str, str]] = set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_namespaces(), name="guard namespaces")
            while True:
                self._desired.kinds_changed.clear()
                for api_version, kind in sorted(self._desired.kinds - watched):
                    watched.add((api_version, kind))
                    tasks.create_task(self._watch_kind(api_version, kind), name=f"guard {kind}")
                await self._desired.kinds_changed.wait()

    async def _watch_namespaces(self) -> None:
        async for seen in Reflector(self._client, NAMESPACES, metadata_only=True).run():
            if isinstance(seen, Listed):
                for item in seen.items:
                    self._desired.namespace_seen(item)
            elif isinstance(seen, Changed):
                self._desired.namespace_seen(seen.object)
            else:
                self._desired.namespace_vanished(str(seen.object["metadata"]["name"]))

    async def _watch_kind(self, api_version: str, kind: str) -> None:
        while True:
            try:
                path = (await self._discovery.resource(api_version, kind)).collection_path()
                break
            except errors.HerdsmanError as exc:
                log.warning(GUARD_FAILED, api_version=api_version, kind=kind, error=exc.message)
                await asyncio.sleep(FIND_AGAIN_S)
        # Both labels: whoever takes one of them away is seen as taking the object away.
        whole = kind in WATCHED_WHOLE
        async for seen in Reflector(self._client, path, selector=f"{SELECTOR},{PART}", metadata_only=not whole).run():
            if isinstance(seen, Listed):
                if seen.last:
                    # What changed before the listing was no event: one look at everything, for all kinds that list now.
                    self._desired.look_at_all()
                continue
            metadata = seen.object["metadata"]
            ref = Ref(api_version, kind, str(metadata.get("namespace") or ""), str(metadata["name"]))
            version = "" if isinstance(seen, Deleted) else str(metadata.get("resourceVersion") or "")
            if whole and isinstance(seen, Changed) and self._desired.is_as_it_should_be(ref, seen.object):
                continue
            if is_owned(seen.object) and not self._applier.is_own_write(ref, version):
                self._desired.tampered(labels_of(seen.object)[PART])
