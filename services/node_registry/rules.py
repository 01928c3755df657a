"""From an observation to a Node: pure parsing, comparing and ordering. Who is which machine is in `machines`, what is told of it in `history`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from libs.common.contracts.messages import NodeObservation
from libs.common.contracts.messages.agents import MAX_NODE_LABELS
from libs.common.resources.meta import Condition, ObjectMeta, check_name
from libs.common.resources.nodes import IDENTITY_COLLISION, Node, NodeSpec, NodeStatus

MAX_TEXT = 4096
MAX_ENTRIES = 256
MAX_STATUS = 48 * 1024
"""Characters of a whole status."""
OVERTAKEN_S = 900.0
"""For so long an observation with a lower resourceVersion counts as late. A cluster that was set back to a backup is believed after that."""
CLOCK_SKEW_S = 300.0
MAY_BE_LEFT_OUT = frozenset({"labels", "taints", "addresses", "conditions", "resources"})
MAX_LEFT_OUT = 1_000_000

HUB_CONDITIONS = frozenset({IDENTITY_COLLISION})
"""What the hub says about a node; an agent that says the like is not heard."""
HUB_FIELDS = ("machine", "first_seen", "reboots", "booted_at", "former_names", "last_observed", "observed_revision")
"""Fields of the status that no agent fills in."""

_UID = re.compile(r"[!-~]{0,64}")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
"""Control characters, what reorders or hides text, and half characters: whoever reads a node must see what it says."""


def parse_observation(observed: NodeObservation) -> NodeStatus | None:
    """The status in an observation, or None when it is no node: an agent is not believed to send only what we'd send."""
    if not _UID.fullmatch(observed.uid):
        return None
    try:
        check_name(observed.name)
        status = NodeStatus.model_validate(_bounded(_visible(observed.status)))
    except (ValueError, ValidationError):
        return None
    blank = NodeStatus()
    for field in HUB_FIELDS:
        setattr(status, field, getattr(blank, field))
    status.observed_revision = observed.revision if parse_revision(observed.revision) is not None else ""
    status.observed_generation = None
    unique = {c.type: c for c in status.conditions if c.type and c.type not in HUB_CONDITIONS}
    status.conditions = [unique[type_] for type_ in sorted(unique)]
    status.left_out = {
        what: min(count, MAX_LEFT_OUT)
        for what, count in status.left_out.items()
        if what in MAY_BE_LEFT_OUT and count > 0
    }
    left_out = len(observed.labels) - len(render_labels(observed))
    if left_out > 0:
        status.left_out["labels"] = status.left_out.get("labels", 0) + left_out
    return status


def render_labels(observed: NodeObservation) -> dict[str, str]:
    """The node's labels, as far as they are labels: they become those of the Node object, which selectors read."""
    fine = {
        str(key): value for key, value in observed.labels.items() if isinstance(value, str) and _is_label(key, value)
    }
    return {key: fine[key] for key in sorted(fine)[:MAX_NODE_LABELS]}


def keep_known_times(status: NodeStatus, before: NodeStatus | None, now: datetime) -> None:
    """A condition that is said to have changed in the future has changed when we first heard of it."""
    for condition in status.conditions:
        if condition.last_transition_time > now + timedelta(seconds=CLOCK_SKEW_S):
            known = before.condition(condition.type) if before is not None else None
            same = known is not None and known.status == condition.status
            condition.last_transition_time = known.last_transition_time if same and known is not None else now


def node_name(cluster: str, node: str) -> str | None:
    """Name of the Node object, or None when it would be too long for a name."""
    name = f"{cluster}.{node}"
    try:
        return check_name(name)
    except ValueError:
        return None


def render_node(cluster: str, cluster_uid: str, observed: NodeObservation, status: NodeStatus, now: datetime) -> Node:
    """A Node that was not known before."""
    spec = NodeSpec(cluster=cluster, cluster_uid=cluster_uid, node_name=observed.name, node_uid=observed.uid)
    fresh = status.model_copy(update={"last_observed": now})
    meta = ObjectMeta(
        name=node_name(cluster, observed.name), uid=str(uuid4()), creation_timestamp=now, generation=1,
        labels=render_labels(observed) or None,
    )  # fmt: skip
    return Node(metadata=meta, spec=spec, status=fresh)


def is_same_node(stored: Node, cluster_uid: str, observed: NodeObservation) -> bool:
    """Whether a stored Node is this very registration and not an earlier one of the same name."""
    return stored.spec.cluster_uid == cluster_uid and stored.spec.node_uid == observed.uid


def is_changed(stored: Node, merged: NodeStatus, labels: dict[str, str]) -> bool:
    """Whether anything differs that an agent says; moments of observation and what the hub says are no change."""
    return (stored.metadata.labels or {}) != labels or observed_part(stored.status) != observed_part(merged)


def observed_part(status: NodeStatus) -> dict[str, Any]:
    """What an agent says in a status."""
    part = {name: value for name, value in status if name not in HUB_FIELDS}
    part["conditions"] = [c for c in status.conditions if c.type not in HUB_CONDITIONS]
    return part


def merge_status(stored: NodeStatus, observed: NodeStatus, now: datetime) -> NodeStatus:
    """What is stored next: what the agent says, with what the hub knows. A boot that was not seen before is counted."""
    fresh = observed.model_copy(deep=True)
    fresh.machine, fresh.first_seen, fresh.former_names = stored.machine, stored.first_seen, list(stored.former_names)
    fresh.reboots, fresh.booted_at, fresh.last_observed = stored.reboots, stored.booted_at, now
    if is_rebooted(stored.boot_id, observed.boot_id):
        fresh.reboots, fresh.booted_at = stored.reboots + 1, now
    if not observed.boot_id:
        fresh.boot_id = (
            stored.boot_id
        )  # a kubelet that has not said it yet: the next boot must be told from the last known one
    ours: list[Condition] = [c for c in stored.conditions if c.type in HUB_CONDITIONS]
    fresh.conditions = sorted([*fresh.conditions, *ours], key=lambda c: c.type)
    return fresh


def is_rebooted(before: str, after: str) -> bool:
    return bool(before and after and before != after)


# ── order ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def parse_revision(text: str) -> int | None:
    """A resourceVersion as a number; None where there is none, which orders nothing."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None


def is_overtaken(stored: Node, revision: str, now: datetime) -> bool:
    """Whether what is stored of this node is newer than what has this revision: messages overtake each other between replicas of this
    service, and two agents of one cluster need not be equally far.
    """
    known, said, seen = (
        parse_revision(stored.status.observed_revision),
        parse_revision(revision),
        stored.status.last_observed,
    )
    if known is None or said is None or seen is None:
        return False
    return said < known and (now - seen).total_seconds() < OVERTAKEN_S


# ── strange input ────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_label(key: Any, value: str) -> bool:
    domain, slash, name = str(key).rpartition("/")
    if slash and (len(domain) > 253 or not _is_name(domain)):
        return False
    return bool(_LABEL_NAME.fullmatch(name)) and len(value) <= 63 and bool(_LABEL_VALUE.fullmatch(value))


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except ValueError:
        return False
    return True


def _visible(value: Any, depth: int = 0) -> Any:
    """The same with everything in it that a reader would not see, or would be misled by, shown as U+FFFD."""
    if depth > 6:
        raise ValueError("too deep")
    if isinstance(value, str):
        return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_visible(str(k)): _visible(v, depth + 1) for k, v in value.items()}
    return [_visible(v, depth + 1) for v in value] if isinstance(value, list) else value


def _bounded(value: Any) -> Any:
    """Raises ValueError for what no real node has, before anything is stored."""
    if _size(value) > MAX_STATUS:
        raise ValueError("more than a node has to say")
    return value


def _size(value: Any) -> int:
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueError("a text is too long")
        return len(value)
    if not isinstance(value, dict | list):
        return 8
    if len(value) > MAX_ENTRIES:
        raise ValueError("too many entries")
    items = [*value, *value.values()] if isinstance(value, dict) else value
    return sum(map(_size, items))
