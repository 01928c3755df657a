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
from services.node_registry.config import NodeRegistryConfig
from services.node_registry.inbox import Inbox
from services.node_registry.reconciler import Living, NodeReconciler, keys_of_cluster, keys_of_node


async def build(host: Host[NodeRegistryConfig]) -> None:
    store = host.store("node_registry")
    grants = await start_live_grants(host)
    nodes_seen = await host.informer("node_registry", "nodes")
    clusters_seen = await host.informer("cluster_controller", "clusters")
    await host.synced()

    inbox, living = Inbox(), Living(clusters_seen, nodes_seen)
    nodes = Objects(nodes_seen, Node)
    reconciler = NodeReconciler(store, host.store("cluster_controller"), inbox, living, nodes, host.now)
    writers = Reconciler("nodes", reconciler.reconcile, workers=host.config.workers)
    follow(clusters_seen, writers, keys_of_cluster)
    follow(nodes_seen, writers, keys_of_node(living))
    host.spawn("node writers", writers.run())

    async def observe(message: NodesObserved, context: Message) -> None:
        cluster_uid = context.tokens[0]
        if cluster_uid not in living.names:
            return  # an agent of a deleted cluster, or one that this copy does not know yet: it lists again
        refused = inbox.put(cluster_uid, message)
        if refused:
            host.log.warning("observations_refused", cluster=living.names[cluster_uid], count=refused)
        writers.add(cluster_uid)

    await host.listen(subjects.observation("*", "nodes"), NodesObserved, observe, queue="node_registry")
    writer = ResourceWriter(store, {}, host.verifier, grants, host.now)
    await host.serve(WRITE["node_registry"], writer.handle)
