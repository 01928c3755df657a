"""What agents said and nobody has written yet: the newest observation of each node, per cluster, bounded.

`main` puts in what it hears, `reconciler` takes out a cluster's whole share. Lost with the process: agents list again by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from libs.common.contracts.messages import NodeObservation, NodesObserved

MAX_NODES = 10_000
"""Per cluster; Kubernetes itself supports 5,000."""


@dataclass(slots=True)
class Pending:
    """`listed`: names of the newest complete listing, if one came; nodes that are not in it and not seen since are gone.

    `revision`: how far the agent was when it listed.
    """

    nodes: dict[str, NodeObservation] = field(default_factory=dict)
    listed: set[str] | None = None
    revision: str = ""


class Inbox:
    def __init__(self) -> None:
        self._pending: dict[str, Pending] = {}

    def put(self, cluster_uid: str, message: NodesObserved) -> int:
        """Keep the newest of each node. Returns how many were refused because the cluster has too many."""
        pending = self._pending.setdefault(cluster_uid, Pending())
        if message.complete:
            pending.listed = {node.name for node in message.nodes} | set(message.present)
            pending.revision = message.revision
            pending.nodes = {name: node for name, node in pending.nodes.items() if name in pending.listed}
        refused = 0
        for node in message.nodes:
            if node.name not in pending.nodes and len(pending.nodes) >= MAX_NODES:
                refused += 1
                continue
            pending.nodes[node.name] = node
            if pending.listed is not None:
                pending.listed.add(node.name)
        if refused:
            pending.listed = None  # a listing that was cut says nothing about what is gone
        return refused

    def take(self, cluster_uid: str) -> Pending | None:
        """All that is pending of a cluster, once."""
        return self._pending.pop(cluster_uid, None)

    def give_back(self, cluster_uid: str, taken: Pending) -> None:
        """Put back what could not be written, under what came meanwhile."""
        newer = self._pending.get(cluster_uid)
        if newer is None:
            self._pending[cluster_uid] = taken
        elif newer.listed is None:
            newer.nodes = {**taken.nodes, **newer.nodes}
            newer.listed = None if taken.listed is None else taken.listed | newer.nodes.keys()
            newer.revision = taken.revision
