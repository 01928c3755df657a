"""A node_registry in memory: observations in, Node objects, conditions and histories out."""

from __future__ import annotations

from contextlib import asynccontextmanager

from libs.common.contracts.messages import NodeObservation, NodesObserved
from libs.common.resources.node_history import NodeHistory
from libs.common.resources.nodes import IDENTITY_COLLISION, Node
from services.node_registry.collisions import CollisionReconciler
from services.node_registry.history_log import HistoryLog
from services.node_registry.inbox import MAX_NODES, Inbox
from services.node_registry.pace import Pace
from services.node_registry.reconciler import REGISTERS_EVERY_S, NodeReconciler
from services.node_registry.registrar import Registrar
from services.node_registry.view import View
from tests.access import made
from tests.access.hub import running_hub

EAST = made.cluster("east")


def seen(name="n1", uid="u1", revision="", labels=None, **status) -> NodeObservation:
    body = {"ready": True, "kubeletVersion": "v1.36.1", **status}
    return NodeObservation(name=name, uid=uid, revision=str(revision), labels=labels or {}, status=body)


def listing(*nodes, present=(), revision="") -> NodesObserved:
    return NodesObserved(nodes=list(nodes), complete=True, present=list(present), revision=str(revision))


class Registry:
    """One replica. `collide` runs what `main` lets run when the view says so."""

    def __init__(self, hub, ticks=None, at_once=MAX_NODES) -> None:
        self.hub, self.inbox = hub, Inbox()
        self.ticks = ticks or (lambda: hub.now().timestamp())
        self.view = View(hub.informers["clusters"], hub.informers["nodes"], self.ticks)
        self.touched: set[str] = set()
        self.view.subscribe(self.touched.add)
        store = hub.stores["node_registry"]
        self.log = HistoryLog(store)
        self.collisions = CollisionReconciler(store, self.view, hub.now)
        self.reconciler = NodeReconciler(
            store, hub.stores["cluster_controller"], self.inbox, self.view, hub.objects(Node), Registrar(self.view, self.log, hub.now),
            Pace(self.ticks), Pace(self.ticks, at_once, REGISTERS_EVERY_S), hub.now,
        )  # fmt: skip

    async def observe(self, message: NodesObserved, uid: str = EAST.uid):
        self.inbox.put(uid, message)
        outcome = await self.reconciler.reconcile(uid)
        await self.hub.settle()
        return outcome

    async def collide(self) -> None:
        while self.touched:
            await self.collisions.reconcile(self.touched.pop())
            await self.hub.settle()

    def names(self) -> set[str]:
        return set(self.hub.objects(Node).names())

    async def node(self, name: str = "east.n1") -> Node:
        return await self.hub.get(Node, name)

    async def history(self, name: str = "east.n1") -> NodeHistory:
        return (await self.log.read((await self.node(name)).status.machine))[0]

    async def collision(self, name: str) -> str:
        said = (await self.node(name)).status.condition(IDENTITY_COLLISION)
        return said.message if said is not None else ""


@asynccontextmanager
async def running(clock):
    async with running_hub(clock) as hub:
        await hub.put(EAST)
        yield Registry(hub)
