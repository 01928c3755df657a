"""Keeps the condition `IdentityCollision` of each node right: keys are names of Node objects, added when anything changed that decides about it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.common import errors
from libs.common.observe import log
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources.nodes import IDENTITY_COLLISION, Node
from libs.common.store.base import Store
from libs.common.store.objects import modify
from services.node_registry.machines import render_collision
from services.node_registry.view import View

LOOK_AGAIN_S = 300.0
"""A collision also ends because nothing is heard of the other's cluster any more, which no change tells."""
COLLISION_FOUND = "node_identity_collision"


class CollisionReconciler:
    def __init__(self, store: Store, view: View, now: Callable[[], datetime]) -> None:
        self._store = store
        self._view = view
        self._now = now

    async def reconcile(self, name: str) -> Outcome:
        facts = self._view.facts.get(name)
        if facts is None:
            return DONE
        now = self._now()
        colliding, reason, message = render_collision(
            facts, self._view.sharing(facts.identifiers, facts.cluster_uid), now
        )

        def mutate(node: Node) -> bool:
            if node.uid != facts.uid:
                return False  # another node of this name; it has a key of its own change
            before = node.status.condition(IDENTITY_COLLISION)
            if before is None and not colliding:
                return False
            if not colliding:
                node.status.conditions = [c for c in node.status.conditions if c.type != IDENTITY_COLLISION]
                return True
            return node.status.set_condition(IDENTITY_COLLISION, True, reason, message, now)

        known = facts.collision
        if known == (message if colliding else ""):
            return After(LOOK_AGAIN_S) if colliding else DONE
        try:
            await modify(self._store, Node, name, mutate, now=self._now)
        except errors.NotFound:
            return DONE
        if colliding:
            log.get("node_registry").warning(COLLISION_FOUND, node=name, reason=reason, what=message)
        return After(LOOK_AGAIN_S) if colliding else DONE
