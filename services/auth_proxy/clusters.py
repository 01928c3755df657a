"""The living clusters as the front door needs them: by uid, with the key of their agent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from libs.common.resources import codec
from libs.common.resources.clusters import Cluster
from libs.common.store.informer import Change, Informer


@dataclass(frozen=True, slots=True)
class ClusterFact:
    name: str
    uid: str
    public_key: str
    last_heartbeat: datetime | None


class ClusterIndex:
    """Follows the clusters. `on_gone` hears the uid of a cluster that was deleted or whose agent has another key now."""

    def __init__(self, informer: Informer, on_gone: Callable[[str], None]) -> None:
        self._by_uid: dict[str, ClusterFact] = {}
        self._on_gone = on_gone
        informer.subscribe(self._changed, replay=True)

    def get(self, uid: str) -> ClusterFact | None:
        return self._by_uid.get(uid)

    def _changed(self, change: Change) -> None:
        if not change.key.startswith("clusters."):
            return
        after = codec.decode(Cluster, change.after.value, change.after.revision) if change.after is not None else None
        last = after or codec.decode(Cluster, change.last.value, change.last.revision)
        if after is None:
            self._forget(last.uid)
            return
        before = self._by_uid.get(after.uid)
        agent = after.status.agent
        self._by_uid[after.uid] = ClusterFact(after.name, after.uid, agent.public_key, agent.last_heartbeat)
        if before is not None and before.public_key and before.public_key != agent.public_key:
            self._on_gone(after.uid)
        for uid in [f.uid for f in self._by_uid.values() if f.name == after.name and f.uid != after.uid]:
            self._forget(uid)

    def _forget(self, uid: str) -> None:
        if self._by_uid.pop(uid, None) is not None:
            self._on_gone(uid)
