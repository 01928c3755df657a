"""What is known of a node beside its object: the history of its machine, and which other nodes say that they are this machine.

Whoever may get the node gets these. The history is read from the store when somebody asks; of other nodes, those are named that the caller may get.
"""

from __future__ import annotations

from aiohttp import web

from libs.common import errors
from libs.common.apiserver import rights
from libs.common.resources import codec
from libs.common.resources.machine_ids import find_identifiers
from libs.common.resources.meta import API_VERSION
from libs.common.resources.node_history import NodeHistory, history_key
from libs.common.resources.nodes import IDENTITY_COLLISION, Node
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Store
from libs.common.store.record import unpack_record
from services.gateway.answers import answer
from services.gateway.api import start_cache
from services.gateway.call import Call
from services.gateway.state import State

NODES = BY_MODEL[Node]
MAX_NAMED = 100


class Nodes:
    def __init__(self, state: State) -> None:
        self._state = state

    async def history(self, call: Call) -> web.StreamResponse:
        """`{"machine", "changes", "dropped", "sameIdentity"}`: oldest change first; in `sameIdentity` names of Node objects."""
        rights.check_caller(call.principal, "get")
        await start_cache(self._state.caches[NODES.plural])
        name = call.path("name")
        document = await self._state.find(NODES, name)
        rights.check_object(self._state.grants.current, call.principal, "get", NODES, name, document)
        if document is None:
            raise rights.absent(NODES, name)
        node = Node.model_validate(document)
        known = await read_history(self._state.nodes, node.status.machine)
        # A node that a later registration of its machine has left behind has no history of its own: that is the other's.
        changes = [c.to_document() for c in known.changes] if known.node_uid == node.spec.node_uid else []
        return answer({
            "apiVersion": API_VERSION, "kind": "NodeHistory", "metadata": {"name": node.name}, "machine": node.status.machine,
            "changes": changes, "dropped": known.dropped if changes else 0, "sameIdentity": self._find_others(call, node),
        })  # fmt: skip

    def _find_others(self, call: Call, node: Node) -> list[str]:
        """Names of the nodes that collide with this one, as far as the caller may get them."""
        if not _is_colliding(node):
            return []
        grants, mine = self._state.grants.current, set(find_identifiers(node.spec.node_name, node.status).items())
        found: list[str] = []
        # Reading a node costs far more than looking whether it can be one of them, and a cluster may have ten thousand that collide.
        marks = [_plain(value.encode()) if value.isascii() else b"" for _, value in mine]
        for key, entry in sorted(self._state.caches[NODES.plural].informer.entries.items()):
            if IDENTITY_COLLISION.encode() not in entry.value or key == NODES.key(node.name):
                continue
            if not any(mark in _plain(entry.value) for mark in marks):
                continue
            other = codec.decode(Node, entry.value, entry.revision)
            if _is_colliding(other) and mine & set(find_identifiers(other.spec.node_name, other.status).items()):
                if grants.is_allowed_on(call.principal, "get", NODES.plural, other.to_document()):
                    found.append(other.name)
                if len(found) >= MAX_NAMED:
                    break
        return found


async def read_history(store: Store, machine: str) -> NodeHistory:
    """The history of a machine, an empty one where there is none."""
    if not machine:
        return NodeHistory()
    try:
        entry = await store.get(history_key(machine))
    except errors.NotFound:
        return NodeHistory(machine=machine)
    return NodeHistory.model_validate(unpack_record(entry))


def _plain(text: bytes) -> bytes:
    """Without what identifiers that are the same may differ in."""
    return text.lower().replace(b"-", b"")


def _is_colliding(node: Node) -> bool:
    said = node.status.condition(IDENTITY_COLLISION)
    return said is not None and said.status == "True"
