"""Writes what agents saw into Node objects. Keys are cluster uids: one worker a cluster, many clusters in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.contracts.messages import NodeObservation
from libs.common.observe import log
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources import codec
from libs.common.resources.clusters import Cluster
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.nodes import Node, NodeStatus
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Store
from libs.common.store.objects import Objects, encode_last, encode_unique, modify, read
from services.node_registry import rules
from services.node_registry.inbox import MAX_NODES, Inbox, Pending
from services.node_registry.pace import EVERY_S, Pace
from services.node_registry.registrar import Registrar
from services.node_registry.view import View

if TYPE_CHECKING:
    from libs.common.store.informer import Change

LAST_OBSERVED_EVERY_S = 300.0
"""An unchanged node is written so often at most, only to say that it was seen: 10,000 nodes are then 33 writes a second."""
REGISTERS_EVERY_S = 1.0
"""After as many as a cluster may have at once: each registration of a machine that nobody knows leaves a history and a tombstone for a week."""
_log = log.get("node_registry")


class NodeReconciler:
    def __init__(
        self, store: Store, clusters_store: Store, inbox: Inbox, view: View, nodes: Objects[Node], registrar: Registrar, pace: Pace,
        registrations: Pace, now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._store = store
        self._clusters_store = clusters_store
        self._inbox = inbox
        self._view = view
        self._nodes = nodes
        self._registrar = registrar
        self._pace = pace
        self._registrations = registrations
        self._now = now

    async def reconcile(self, cluster_uid: str) -> Outcome:
        cluster = self._view.names.get(cluster_uid)
        pending = self._inbox.take(cluster_uid)
        if cluster is None:
            await self._forget_cluster(cluster_uid)
            return DONE
        if pending is None:
            return DONE
        later = Pending()
        try:
            if pending.listed is not None:
                # Before what is new is written: a machine that comes back under another name is known by the one that went.
                await self._forget_unlisted(cluster, cluster_uid, pending.listed, pending.revision)
            refused = 0
            for observed in pending.nodes.values():
                if self._is_too_many(cluster, cluster_uid, observed):
                    refused += 1
                elif not await self._write(cluster, cluster_uid, observed):
                    later.nodes[observed.name] = observed
            if refused:
                _log.warning("observations_refused", cluster=cluster, count=refused)
        except errors.HerdsmanError:
            self._inbox.give_back(cluster_uid, pending)
            raise
        if not later.nodes:
            return DONE
        self._inbox.give_back(cluster_uid, later)
        return After(EVERY_S)

    def _is_too_many(self, cluster: str, cluster_uid: str, observed: NodeObservation) -> bool:
        """Whether this is one more than the nodes that a cluster may have, however many messages they came in."""
        known = self._view.of_cluster(cluster_uid)
        return len(known) >= MAX_NODES and rules.node_name(cluster, observed.name) not in known

    async def _write(self, cluster: str, cluster_uid: str, observed: NodeObservation) -> bool:
        """False: it changes too often, or its cluster registers too many, and is to be written later."""
        status, name = rules.parse_observation(observed), rules.node_name(cluster, observed.name)
        if status is None or name is None:
            _log.warning("observation_refused", cluster=cluster, node=observed.name[:64])
            return True
        now = self._now()
        stored = self._nodes.get(name)
        is_known = stored is not None and rules.is_same_node(stored, cluster_uid, observed)
        if not is_known and not self._registrations.take(cluster_uid):
            return False
        if stored is None:
            stored = await self._create(cluster, cluster_uid, observed, status, None)
            if stored is None:
                return True
        if not rules.is_same_node(stored, cluster_uid, observed):
            if stored.spec.cluster_uid == cluster_uid and self._is_late(cluster_uid, observed):
                return True
            await self._delete(name, stored.uid)
            await self._create(cluster, cluster_uid, observed, status, stored)
            return True
        return await self._update(name, cluster_uid, observed, status, now)

    async def _create(
        self, cluster: str, cluster_uid: str, observed: NodeObservation, status: NodeStatus, replaced: Node | None
    ) -> Node | None:
        """Write a node that was not there. Returns what is there instead, where the copy was behind."""
        now = self._now()
        if self._is_late(cluster_uid, observed):
            return None
        rules.keep_known_times(status, None, now)
        fresh = rules.render_node(cluster, cluster_uid, observed, status, now)
        await self._registrar.register(fresh, replaced)
        try:
            await self._store.create(BY_MODEL[Node].key(fresh.name), encode_unique(fresh))
        except errors.AlreadyExists:
            return await read(self._store, Node, fresh.name)
        self._view.learn(fresh.name, fresh)
        return None

    def _is_late(self, cluster_uid: str, observed: NodeObservation) -> bool:
        """Whether this is of a node that went a short while ago: a uid that went does not come back, but messages come late."""
        went = self._view.went(cluster_uid, observed.uid) if observed.uid else None
        said = rules.parse_revision(observed.revision)
        return went is not None and said is not None and went[1] < rules.OVERTAKEN_S

    async def _update(
        self, name: str, cluster_uid: str, observed: NodeObservation, status: NodeStatus, now: datetime
    ) -> bool:
        labels = rules.render_labels(observed)

        def plan(node: Node) -> tuple[NodeStatus, bool] | None:
            """What to store next, and whether it is a change; None = nothing."""
            if rules.is_overtaken(node, observed.revision, now):
                return None
            rules.keep_known_times(status, node.status, now)
            merged = rules.merge_status(node.status, status, now)
            seen = node.status.last_observed
            due = seen is None or (now - seen).total_seconds() >= LAST_OBSERVED_EVERY_S
            changed = rules.is_changed(node, merged, labels)
            return (merged, changed) if changed or due else None

        known = self._nodes.get(name) or await read(self._store, Node, name)
        planned = plan(known)
        if planned is None:
            return True
        identity: dict[str, object] = {}
        if planned[1]:
            if not self._pace.take(name):
                return False
            after = known.model_copy(update={"status": planned[0], "metadata": _labelled(known, labels)})
            identity = await self._registrar.identify(known, after)
            if not identity:
                await self._registrar.note(known, after)

        def mutate(node: Node) -> bool:
            if not rules.is_same_node(node, cluster_uid, observed):
                raise errors.Conflict(f'node "{name}" was made again meanwhile', kind="Node", name=name)
            again = plan(node)
            if again is None:
                return False
            node.status, node.metadata = again[0].model_copy(update=identity), _labelled(node, labels)
            return True

        written = await modify(self._store, Node, name, mutate, now=self._now)
        if identity:
            self._view.learn(name, written)
        return True

    async def _forget_unlisted(self, cluster: str, cluster_uid: str, listed: set[str], revision: str) -> None:
        kept = {rules.node_name(cluster, name) for name in listed}
        for name in sorted(self._view.of_cluster(cluster_uid) - kept):
            node = self._nodes.get(name)
            if node is None or rules.is_overtaken(node, revision, self._now()):
                continue  # a listing from before it came
            await self._registrar.note_removed(node)
            await self._delete(name, node.uid)
            _log.info("node_removed", cluster=cluster, node=node.spec.node_name)

    async def _forget_cluster(self, cluster_uid: str) -> None:
        """Its nodes go with it, if its owner says so too: a copy that is behind must not cost any."""
        names = sorted(self._view.of_cluster(cluster_uid))
        if not names:
            self._view.forget_cluster(cluster_uid)
            return
        first = self._nodes.get(names[0])
        if first is not None and await self._is_living(first.spec.cluster, cluster_uid):
            raise errors.Unavailable("the copy of the clusters is behind its bucket")
        for name in names:
            node = self._nodes.get(name)
            if node is not None and node.spec.cluster_uid == cluster_uid:
                await self._registrar.note_removed(node)
                await self._delete(name, node.uid)
        _log.info("nodes_of_deleted_cluster_removed", cluster_uid=cluster_uid, count=len(names))

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
                self._view.learn(name, None)
        except errors.NotFound:
            return


def _labelled(node: Node, labels: dict[str, str]) -> ObjectMeta:
    return node.metadata.model_copy(update={"labels": labels or None})


def keys_of_cluster(change: Change) -> Iterable[str]:
    """A cluster that is gone."""
    if change.after is not None:
        return ()
    return (str(codec.decode_document(change.last.value, change.last.revision)["metadata"]["uid"]),)


def keys_of_node(view: View) -> Callable[[Change], Iterable[str]]:
    """The cluster of a node whose cluster is not there: what was left when this service was away."""

    def keys(change: Change) -> Iterable[str]:
        if change.after is None:
            return ()
        uid = str(codec.decode_document(change.after.value, change.after.revision)["spec"]["clusterUid"])
        return () if uid in view.names else (uid,)

    return keys
