"""Writes what agents saw into Node objects. Keys are cluster uids: one worker a cluster, many clusters in parallel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.contracts.messages import NodeObservation
from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources import codec
from libs.common.resources.clusters import Cluster
from libs.common.resources.nodes import Node
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Store
from libs.common.store.objects import Objects, encode_last, encode_unique, modify, read
from services.node_registry import rules
from services.node_registry.inbox import Inbox

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer

LAST_OBSERVED_EVERY_S = 300.0
"""An unchanged node is written so often at most, only to say that it was seen: 10,000 nodes are then 33 writes a second."""


class Living:
    """Names of the living clusters by uid, and names of Node objects by cluster uid, both by informer."""

    def __init__(self, clusters: Informer, nodes: Informer) -> None:
        self.names: dict[str, str] = {}
        self.nodes: defaultdict[str, set[str]] = defaultdict(set)
        clusters.subscribe(self._on_cluster, replay=True)
        nodes.subscribe(self._on_node, replay=True)

    def _on_cluster(self, change: Change) -> None:
        if change.before is not None:
            self.names.pop(_uid(change.before.value, change.before.revision), None)
        if change.after is not None:
            self.names[_uid(change.after.value, change.after.revision)] = change.key.partition(".")[2]

    def _on_node(self, change: Change) -> None:
        name = change.key.partition(".")[2]
        if change.before is not None:
            held = self.nodes[codec.decode(Node, change.before.value, change.before.revision).spec.cluster_uid]
            held.discard(name)
        if change.after is not None:
            self.nodes[codec.decode(Node, change.after.value, change.after.revision).spec.cluster_uid].add(name)


class NodeReconciler:
    def __init__(
        self, store: Store, clusters_store: Store, inbox: Inbox, living: Living, nodes: Objects[Node], now: Callable[[], datetime]
    ) -> None:  # fmt: skip
        self._store = store
        self._clusters_store = clusters_store
        self._inbox = inbox
        self._living = living
        self._nodes = nodes
        self._now = now

    async def reconcile(self, cluster_uid: str) -> Outcome:
        cluster = self._living.names.get(cluster_uid)
        pending = self._inbox.take(cluster_uid)
        if cluster is None:
            await self._forget_cluster(cluster_uid)
            return DONE
        if pending is None:
            return DONE
        try:
            for observed in pending.nodes.values():
                await self._write(cluster, cluster_uid, observed)
            if pending.listed is not None:
                await self._forget_unlisted(cluster, cluster_uid, pending.listed)
        except errors.HerdsmanError:
            self._inbox.give_back(cluster_uid, pending)
            raise
        return DONE

    async def _write(self, cluster: str, cluster_uid: str, observed: NodeObservation) -> None:
        status, name = rules.parse_observation(observed), rules.node_name(cluster, observed.name)
        if status is None or name is None:
            log.get("node_registry").warning("observation_refused", cluster=cluster, node=observed.name[:64])
            return
        now = self._now()
        stored = self._nodes.get(name)
        if stored is None:
            fresh = rules.render_node(cluster, cluster_uid, observed, status, now)
            try:
                await self._store.create(BY_MODEL[Node].key(name), encode_unique(fresh))
                return
            except errors.AlreadyExists:
                stored = await read(self._store, Node, name)  # the copy is behind
        if not rules.is_same_node(stored, cluster_uid, observed):
            await self._delete(name, stored.uid)
            fresh = rules.render_node(cluster, cluster_uid, observed, status, now)
            await self._store.create(BY_MODEL[Node].key(name), encode_unique(fresh))
            return
        seen = stored.status.last_observed
        due = seen is None or (now - seen).total_seconds() >= LAST_OBSERVED_EVERY_S
        if not due and not rules.is_changed(stored, status):
            return

        def mutate(node: Node) -> bool:
            if not rules.is_same_node(node, cluster_uid, observed):
                raise errors.Conflict(f'node "{name}" was made again meanwhile', kind="Node", name=name)
            node.status = status.model_copy(update={"last_observed": now})
            return True

        await modify(self._store, Node, name, mutate, now=self._now)

    async def _forget_unlisted(self, cluster: str, cluster_uid: str, listed: set[str]) -> None:
        kept = {rules.node_name(cluster, name) for name in listed}
        for name in sorted(self._living.nodes[cluster_uid] - kept):
            node = self._nodes.get(name)
            if node is not None:
                await self._delete(name, node.uid)
                log.get("node_registry").info("node_removed", cluster=cluster, node=node.spec.node_name)

    async def _forget_cluster(self, cluster_uid: str) -> None:
        """Its nodes go with it, if its owner says so too: a copy that is behind must not cost any."""
        names = sorted(self._living.nodes.get(cluster_uid, ()))
        if not names:
            self._living.nodes.pop(cluster_uid, None)
            return
        first = self._nodes.get(names[0])
        if first is not None and await self._is_living(first.spec.cluster, cluster_uid):
            raise errors.Unavailable("the copy of the clusters is behind its bucket")
        for name in names:
            node = self._nodes.get(name)
            if node is not None and node.spec.cluster_uid == cluster_uid:
                await self._delete(name, node.uid)
        log.get("node_registry").info("nodes_of_deleted_cluster_removed", cluster_uid=cluster_uid, count=len(names))

    async def _is_living(self, cluster: str, cluster_uid: str) -> bool:
        try:
            return (await read(self._clusters_store, Cluster, cluster)).uid == cluster_uid
        except errors.NotFound:
            return False

    async def _delete(self, name: str, uid: str) -> None:
        try:
            stored = await read(self._store, Node, name)
            if stored.uid == uid:
                revision = int(stored.metadata.resource_version or 0)
                await self._store.delete(BY_MODEL[Node].key(name), encode_last(stored), revision)
        except errors.NotFound:
            return


def keys_of_cluster(change: Change) -> Iterable[str]:
    """A cluster that is gone."""
    return () if change.after is not None else (_uid(change.last.value, change.last.revision),)


def keys_of_node(living: Living) -> Callable[[Change], Iterable[str]]:
    """The cluster of a node whose cluster is not there: what was left when this service was away."""

    def keys(change: Change) -> Iterable[str]:
        if change.after is None:
            return ()
        uid = codec.decode(Node, change.after.value, change.after.revision).spec.cluster_uid
        return () if uid in living.names else (uid,)

    return keys


def _uid(value: bytes, revision: int) -> str:
    return str(codec.decode_document(value, revision)["metadata"]["uid"])
