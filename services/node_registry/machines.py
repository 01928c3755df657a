"""Which machine a node is: when two registrations are the same machine, and when two nodes collide. Pure.

Identifiers (`libs.common.resources.machine_ids`) are only as good as whoever set them, so none counts that is known to be a placeholder, that says no
more than the node's name, or that others have, too. What agents say of them is believed for their own cluster alone: identity and history never pass from one cluster to another (decision 0032).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

from libs.common.resources.machine_ids import KINDS, Identifier, find_identifiers
from libs.common.resources.nodes import IDENTITY_COLLISION, Node

STALE_S = 900.0
"""A node of which nothing was heard for so long is not counted as living: its cluster may be gone."""
MAX_FORMER_NAMES = 5
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules must know of a Node. `name` is the object's. `living`: its kubelet is heard of, and its cluster."""

    name: str
    uid: str
    cluster_uid: str
    node_name: str
    node_uid: str
    machine: str
    ids: Mapping[str, str] = field(default_factory=dict)
    boot_id: str = ""
    reported: bool = False
    last_observed: datetime | None = None
    first_seen: datetime | None = None
    booted_at: datetime | None = None
    reboots: int = 0
    former_names: tuple[str, ...] = ()
    revision: str = ""
    collision: str = ""
    """Message of the condition that the node has now."""

    @property
    def identifiers(self) -> list[Identifier]:
        return list(self.ids.items())

    def is_living(self, now: datetime) -> bool:
        return self.reported and self.last_observed is not None and (now - self.last_observed).total_seconds() < STALE_S


def facts_of(node: Node) -> Facts:
    status = node.status
    return Facts(
        node.name, node.uid, node.spec.cluster_uid, node.spec.node_name, node.spec.node_uid, status.machine,
        find_identifiers(node.spec.node_name, status), status.boot_id, status.ready is not None, status.last_observed,
        status.first_seen or node.metadata.creation_timestamp, status.booted_at, status.reboots, tuple(status.former_names),
        status.observed_revision, said.message if (said := status.condition(IDENTITY_COLLISION)) is not None else "",
    )  # fmt: skip


def is_same_machine(
    one: Mapping[str, str], other: Mapping[str, str], shared: AbstractSet[Identifier] = frozenset()
) -> bool:
    """By the strongest identifier that both have. `shared`: those that third nodes have as well, so that they tell nothing."""
    for kind in KINDS:
        left, right = one.get(kind), other.get(kind)
        if left and right and not {(kind, left), (kind, right)} & shared:
            return left == right
    return False


def is_same_boot(one: Facts, boot_id: str) -> bool:
    """Whether one kernel runs both: no two machines have a boot in common, whatever disk they were copied from."""
    return bool(boot_id) and one.boot_id == boot_id


def find_predecessor(
    fresh: Facts, replaced: Facts | None, others: Iterable[Facts], gone: Iterable[Facts], now: datetime
) -> Facts | None:
    """Which earlier registration in its cluster a node that was not there before goes on with; None = it is a machine of its own.

    `replaced`: the one that had its name until now; `others`: those that are there; `gone`: those that were. A node that lives beside it is the same
    machine only if one kernel runs both: then it was renamed, and the old registration has not gone yet.
    """
    there = [f for f in others if f.name != fresh.name and f.cluster_uid == fresh.cluster_uid]
    before = [f for f in gone if f.cluster_uid == fresh.cluster_uid]
    candidates: list[Facts] = [*([replaced] if replaced is not None else ()), *there, *before]
    for candidate in sorted(candidates, key=_age, reverse=True):
        living = candidate in there and candidate.is_living(now)
        if living and not is_same_boot(candidate, fresh.boot_id):
            continue
        third = (f for f in there if f.name != candidate.name and f.is_living(now))
        shared = frozenset(identifier for f in third for identifier in f.identifiers)
        if candidate.machine and is_same_machine(fresh.ids, candidate.ids, shared):
            return candidate
    return None


def _age(facts: Facts) -> tuple[float, str]:
    return (facts.last_observed.timestamp() if facts.last_observed else 0.0, facts.name)


def make_machine(fresh: Facts, is_taken: Callable[[str], bool]) -> str:
    """The id of a machine that was not known: the same whenever it is made, and another in each cluster, so that ids tell nobody of
    what is in clusters that they don't see. `is_taken`: whether another node has it.
    """
    strongest = next(
        (f"{kind}={fresh.ids[kind]}" for kind in KINDS if kind in fresh.ids), f"node={fresh.node_uid or fresh.name}"
    )
    made = _digest(fresh.cluster_uid, strongest)
    return made if not is_taken(made) else _digest(fresh.cluster_uid, strongest, fresh.node_uid or fresh.name)


def _digest(*parts: str) -> str:
    return "m-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]


def render_collision(node: Facts, others: Iterable[Facts], now: datetime) -> tuple[bool, str, str]:
    """Whether other living nodes say that they are this machine; reason and message for the condition.

    Whoever sees a node sees its cluster's others, so these are named. Of nodes in other clusters it says that there are some: who sees
    these clusters, too, is told by name where somebody asks (the gateway).
    """
    mine = set(node.identifiers)
    meeting = (
        [f for f in others if f.name != node.name and mine & set(f.identifiers) and f.is_living(now)]
        if node.is_living(now)
        else []
    )
    if not meeting:
        return False, "Unique", ""
    kinds = [kind for kind in KINDS if any((kind, node.ids.get(kind, "")) in f.identifiers for f in meeting)]
    here = sorted(f.node_name for f in meeting if f.cluster_uid == node.cluster_uid)
    places = (
        [
            ", ".join(f'"{name}"' for name in here[:MAX_NAMED])
            + (f" and {len(here) - MAX_NAMED} more" if len(here) > MAX_NAMED else "")
        ]
        if here
        else []
    )
    if any(f.cluster_uid != node.cluster_uid for f in meeting):
        places.append("nodes of other clusters")
    one_boot = all(is_same_boot(f, node.boot_id) for f in meeting)
    reason = "SameMachine" if one_boot else "ClonedIdentity"
    why = (
        "one kernel runs them: they are one machine"
        if one_boot
        else "they are different machines with the same identity"
    )
    return True, reason, f"{' and '.join(kinds)} of this node also on {' and '.join(places)}; {why}"
