"""From an observation to a Node: pure parsing and comparing."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from libs.common.contracts.messages import NodeObservation
from libs.common.resources.meta import ObjectMeta, check_name
from libs.common.resources.nodes import Node, NodeSpec, NodeStatus

MAX_TEXT = 4096
MAX_ENTRIES = 256


def parse_observation(observed: NodeObservation) -> NodeStatus | None:
    """The status in an observation, or None when it is no node: an agent is not believed to send only what we'd send."""
    try:
        check_name(observed.name)
        status = NodeStatus.model_validate(_bounded(observed.status))
    except (ValueError, ValidationError):
        return None
    status.observed_generation = None
    return status


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
    )  # fmt: skip
    return Node(metadata=meta, spec=spec, status=fresh)


def is_same_node(stored: Node, cluster_uid: str, observed: NodeObservation) -> bool:
    """Whether a stored Node is this very machine and not an earlier one of the same name."""
    return stored.spec.cluster_uid == cluster_uid and stored.spec.node_uid == observed.uid


def is_changed(stored: Node, status: NodeStatus) -> bool:
    """Whether anything but the moment of observation differs."""
    return stored.status.model_copy(update={"last_observed": None}) != status.model_copy(update={"last_observed": None})


def _bounded(value: Any, depth: int = 0) -> Any:
    """Raises ValueError for what no real node has, before anything is stored."""
    if depth > 6:
        raise ValueError("too deep")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ValueError("a text is too long")
    if isinstance(value, dict | list) and len(value) > MAX_ENTRIES:
        raise ValueError("too many entries")
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        _bounded(item, depth + 1)
    return value
