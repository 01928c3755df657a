"""What agents say of their clusters' namespaces, kept in memory by each replica. Lost with the process: agents tell it again.

What is not known is not there to be asked; only a complete listing says that a namespace is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from libs.common.contracts.messages import NamespaceObservation, NamespacesObserved
from libs.common.resources import codec
from libs.common.store.base import Entry

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer

MAX_NAMESPACES = 20_000
"""Per cluster; Kubernetes itself supports 10,000."""


@dataclass(slots=True)
class ClusterView:
    """`complete`: every namespace that is there is in `known`."""

    known: dict[str, NamespaceObservation] = field(default_factory=dict)
    complete: bool = False


class Observed:
    """By the cluster's uid, which the subject of the agent's message holds and its credential confines."""

    def __init__(self) -> None:
        self._views: dict[str, ClusterView] = {}

    def put(self, cluster_uid: str, message: NamespacesObserved) -> set[str]:
        """Take a message in. Returns the names of namespaces that are not as they were."""
        view = self._views.setdefault(cluster_uid, ClusterView())
        changed = set()
        for namespace in message.namespaces:
            if view.known.get(namespace.name) == namespace:
                continue
            if namespace.name not in view.known and len(view.known) >= MAX_NAMESPACES:
                view.complete = False
                continue
            view.known[namespace.name] = namespace
            changed.add(namespace.name)
        if message.complete:
            listed = {namespace.name for namespace in message.namespaces} | set(message.present)
            gone = view.known.keys() - listed
            for name in gone:
                del view.known[name]
            changed |= gone
            complete = listed <= view.known.keys()
            if complete and not view.complete:
                changed |= listed
            view.complete = complete
        return changed

    def get(self, cluster_uid: str, name: str) -> NamespaceObservation | None:
        view = self._views.get(cluster_uid)
        return view.known.get(name) if view is not None else None

    def is_absent(self, cluster_uid: str, name: str) -> bool:
        """Whether it is certain that there is no such namespace."""
        view = self._views.get(cluster_uid)
        return view is not None and view.complete and name not in view.known

    def forget(self, cluster_uid: str) -> None:
        """The cluster is gone."""
        self._views.pop(cluster_uid, None)


class LivingClusters:
    """Names of the living clusters by uid, by informer. `gone` is told the uid of each that goes."""

    def __init__(self, clusters: Informer, gone: Callable[[str], None]) -> None:
        self.names: dict[str, str] = {}
        self._gone = gone
        clusters.subscribe(self._on_cluster, replay=True)

    def _on_cluster(self, change: Change) -> None:
        before = _uid(change.before) if change.before is not None else ""
        after = _uid(change.after) if change.after is not None else ""
        if before and before != after:
            self.names.pop(before, None)
            self._gone(before)
        if after:
            self.names[after] = change.key.partition(".")[2]


def _uid(entry: Entry) -> str:
    return str(codec.decode_document(entry.value, entry.revision)["metadata"]["uid"])
