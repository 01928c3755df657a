"""The wiring of node_registry. Replicas share the observations through a queue group; a cluster's nodes are written by CAS."""

from __future__ import annotations

from libs.common.access.live import start_live_grants
from libs.common.apiserver.writer import ResourceWriter
from libs.common.bus.base import Message
from libs.common.contracts import subjects
from libs.common.contracts.messages import NodesObserved
from libs.common.contracts.methods import WRITE
from libs.common.reconcile import Reconciler, follow
from libs.common.resources.nodes import Node
from libs.common.runtime.host import Host
from libs.common.store.objects import Objects
from services.node_registry.collisions import CollisionReconciler
from services.node_registry.config import NodeRegistryConfig
from services.node_registry.history_log import HistoryLog
from services.node_registry.inbox import MAX_NODES, Inbox
from services.node_registry.pace import Pace
from services.node_registry.reconciler import REGISTERS_EVERY_S, NodeReconciler, keys_of_cluster, keys_of_node
from services.node_registry.registrar import Registrar
from services.node_registry.view import View


async def build(host: Host[NodeRegistryConfig]) -> None:
    store = host.store("node_registry")
    # The view comes first: it wants to hear the first listing, too, for what is in tombstones.
    nodes_seen = await host.informer("node_registry", "nodes")
    clusters_seen = await host.informer("cluster_controller", "clusters")
    view = View(clusters_seen, nodes_seen, host.monotonic)
    grants = await start_live_grants(host)
    await host.synced()

    inbox, nodes = Inbox(), Objects(nodes_seen, Node)
    registrar = Registrar(view, HistoryLog(store), host.now)
    registrations = Pace(host.monotonic, MAX_NODES, REGISTERS_EVERY_S)
    reconciler = NodeReconciler(
        store, host.store("cluster_controller"), inbox, view, nodes, registrar, Pace(host.monotonic), registrations, host.now
    )  # fmt: skip
    writers = Reconciler("nodes", reconciler.reconcile, workers=host.config.workers)
    follow(clusters_seen, writers, keys_of_cluster)
    follow(nodes_seen, writers, keys_of_node(view))
    host.spawn("node writers", writers.run())

    collisions = Reconciler("node collisions", CollisionReconciler(store, view, host.now).reconcile, workers=2)
    view.subscribe(collisions.add)
    host.spawn("node collisions", collisions.run())

    async def observe(message: NodesObserved, context: Message) -> None:
        cluster_uid = context.tokens[0]
        if cluster_uid not in view.names:
            return  # an agent of a deleted cluster, or one that this copy does not know yet: it lists again
        refused = inbox.put(cluster_uid, message)
        if refused:
            host.log.warning("observations_refused", cluster=view.names[cluster_uid], count=refused)
        writers.add(cluster_uid)

    await host.listen(subjects.observation("*", "nodes"), NodesObserved, observe, queue="node_registry")
    writer = ResourceWriter(store, {}, host.verifier, grants, host.now)
    await host.serve(WRITE["node_registry"], writer.handle)
