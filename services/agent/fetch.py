"""The desired set, fetched from the hub: what differs from what is had, in as many answers as it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts.messages import DesiredQuery, DesiredSet
from libs.common.contracts.methods import GET_DESIRED
from libs.common.kube.objects import content_hash, set_hash

MAX_FETCHES = 100

Fetched = dict[str, tuple[str, list[dict[str, Any]]]]
"""Part name → (hash, objects)."""


async def fetch_parts(
    bus: Bus, cluster_uid: str, had: Mapping[str, tuple[str, list[dict[str, Any]]]]
) -> Fetched | None:
    """The whole set; None = the cluster is deleted, and all of ours is to go. Raises the hub's errors; Unavailable for damaged content."""
    parts: Fetched = dict(had)
    for _ in range(MAX_FETCHES):
        have = {name: hash_ for name, (hash_, _objects) in parts.items()}
        answer = await bus.request(
            GET_DESIRED.agent_subject(cluster_uid), DesiredQuery(have=have), DesiredSet, timeout_s=15
        )
        if answer.detach:
            return None
        for part in answer.parts:
            if content_hash(part.objects) != part.hash:
                raise errors.Unavailable(f'part "{part.name}" of the desired set arrived damaged: its hash is wrong')
            parts[part.name] = (part.hash, part.objects)
        parts = {name: part for name, part in parts.items() if name in answer.names}
        if hash_of_parts(parts) == answer.hash:
            return parts
        if not answer.parts:
            raise errors.Unavailable("the hub's desired set does not add up: it will be asked again")
    raise errors.Unavailable("the hub's desired set changes faster than it can be fetched")


def hash_of_parts(parts: Mapping[str, tuple[str, object]]) -> str:
    return set_hash({name: hash_ for name, (hash_, _objects) in parts.items()})
