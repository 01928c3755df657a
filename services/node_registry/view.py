"""What this process knows of all nodes, by informer: facts by name, by cluster and by identifier, and who went lately.

Each stored Node is decoded once for it. The reconcilers ask here and read the store before they write.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING

from libs.common.resources import codec
from libs.common.resources.machine_ids import Identifier
from libs.common.resources.nodes import Node
from services.node_registry.machines import Facts, facts_of

if TYPE_CHECKING:
    from libs.common.store.base import Entry
    from libs.common.store.informer import Change, Informer

MAX_GONE = 20_000
"""Nodes that went and may come back, the latest. They are in tombstones for a week, and from these known again after a restart."""
MAX_SHARING = 64
"""Of nodes that have one identifier in common so many are looked at, in the same cluster and elsewhere: all nodes of an image that was cloned have
the same, and whoever runs a cluster may say so of ten thousand. By these it is told, too.
"""


class View:
    """`names`: of the living clusters by uid. `subscribe`: told the name of each node whose collisions may have changed."""

    def __init__(self, clusters: Informer, nodes: Informer, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.names: dict[str, str] = {}
        self.facts: dict[str, Facts] = {}
        self._of_cluster: defaultdict[str, set[str]] = defaultdict(set)
        self._as: defaultdict[str, set[str]] = defaultdict(set)
        self._with: defaultdict[Identifier, dict[str, list[str]]] = defaultdict(dict)
        """Identifier → cluster's uid → names, sorted: replicas that look at the first of many look at the same."""
        self._gone: OrderedDict[str, tuple[Facts, float | None]] = OrderedDict()
        self._gone_with: defaultdict[tuple[str, Identifier], dict[str, None]] = defaultdict(dict)
        self._monotonic = monotonic
        self._listeners: list[Callable[[str], None]] = []
        nodes.hear_listing(self._on_listed)
        clusters.subscribe(self._on_cluster, replay=True)
        nodes.subscribe(self._on_node, replay=True)

    def of_cluster(self, cluster_uid: str) -> set[str]:
        """Names of the cluster's Node objects."""
        return self._of_cluster.get(cluster_uid, set())

    def forget_cluster(self, cluster_uid: str) -> None:
        self._of_cluster.pop(cluster_uid, None)

    def is_taken(self, machine: str, but_by: str) -> bool:
        """Whether a node other than the one of this name is this machine."""
        return bool(self._as.get(machine, set()) - {but_by})

    def sharing(self, ids: Iterable[Identifier], cluster_uid: str) -> list[Facts]:
        """The nodes of this cluster that have one of these, and of others, which can't crowd out the cluster's own; of very many the first."""
        names = set[str]()
        for identifier in ids:
            places = self._with.get(identifier, {})
            names.update(places.get(cluster_uid, ())[:MAX_SHARING])
            others = sorted(places.keys() - {cluster_uid})[:MAX_SHARING]
            for uid in others:
                names.update(places[uid][: max(1, MAX_SHARING // len(others))])
        return [self.facts[name] for name in sorted(names)]

    def gone_sharing(self, cluster_uid: str, ids: Iterable[Identifier]) -> list[Facts]:
        """Those of a cluster that went and had one of these; of very many the latest."""
        keys = set[str]()
        for identifier in ids:
            keys.update(islice(reversed(self._gone_with.get((cluster_uid, identifier), {})), MAX_SHARING))
        return [self._gone[key][0] for key in sorted(keys)]

    def went(self, cluster_uid: str, node_uid: str) -> tuple[Facts, float] | None:
        """A node of this uid that this process saw going, and how many seconds ago."""
        facts, at = self._gone.get(f"{cluster_uid}/{node_uid}", (None, None))
        return None if facts is None or at is None else (facts, self._monotonic() - at)

    def subscribe(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)
        for name in self.facts:
            listener(name)

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_cluster(self, change: Change) -> None:
        if change.before is not None:
            self.names.pop(_uid(change.before), None)
        if change.after is not None:
            self.names[_uid(change.after)] = change.key.partition(".")[2]

    def _on_node(self, change: Change) -> None:
        stored = None if change.after is None else codec.decode(Node, change.after.value, change.after.revision)
        self.learn(change.key.partition(".")[2], stored)

    def learn(self, name: str, stored: Node | None) -> None:
        """What a Node is now, None = it is gone. Who writes one tells it here: the next one may be its clone, or the same machine renamed."""
        before, after = self.facts.pop(name, None), None
        if before is not None:
            self._of_cluster[before.cluster_uid].discard(name)
            self._as[before.machine].discard(name)
            if not self._as[before.machine]:
                del self._as[before.machine]
            for identifier in before.identifiers:
                self._forget_sharing(identifier, before.cluster_uid, name)
        if stored is not None:
            after = self.facts[name] = facts_of(stored)
            self._of_cluster[after.cluster_uid].add(name)
            self._as[after.machine].add(name)
            for identifier in after.identifiers:
                insort(self._with[identifier].setdefault(after.cluster_uid, []), name)
        if before is not None and (after is None or after.node_uid != before.node_uid):
            self._note_gone(before, self._monotonic())
        if before is None or after is None or _meets_as(before) != _meets_as(after):
            met = {
                f.name
                for facts in (before, after)
                if facts is not None
                for f in self.sharing(facts.identifiers, facts.cluster_uid)
            }
            met |= {name} if after is not None else set()
            for listener in self._listeners:
                for one in sorted(met):
                    listener(one)

    def _forget_sharing(self, identifier: Identifier, cluster_uid: str, name: str) -> None:
        places = self._with[identifier]
        names = places[cluster_uid]
        del names[bisect_left(names, name)]
        if not names:
            del places[cluster_uid]
        if not places:
            del self._with[identifier]

    def _on_listed(self, entry: Entry) -> None:
        if entry.deleted and entry.value:
            self._note_gone(facts_of(codec.decode(Node, entry.value, entry.revision)), None)

    def _note_gone(self, facts: Facts, at: float | None) -> None:
        key = f"{facts.cluster_uid}/{facts.node_uid}"
        self._forget_gone(key)
        self._gone[key] = (facts, at)
        for identifier in facts.identifiers:
            self._gone_with[facts.cluster_uid, identifier][key] = None
        while len(self._gone) > MAX_GONE:
            self._forget_gone(next(iter(self._gone)))

    def _forget_gone(self, key: str) -> None:
        if key not in self._gone:
            return
        facts, _ = self._gone.pop(key)
        for identifier in facts.identifiers:
            keys = self._gone_with[facts.cluster_uid, identifier]
            keys.pop(key, None)
            if not keys:
                del self._gone_with[facts.cluster_uid, identifier]


def _meets_as(facts: Facts) -> tuple[object, ...]:
    """What decides about collisions."""
    return facts.ids, facts.boot_id, facts.reported, facts.node_uid


def _uid(entry: Entry) -> str:
    return str(codec.decode_document(entry.value, entry.revision)["metadata"]["uid"])
