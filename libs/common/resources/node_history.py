"""What happened to one machine: the last changes, in a key of its own beside the nodes. No resource: read on demand, in nobody's memory.

node_registry writes it (`services.node_registry.history`), the gateway reads it. Decision 0032.
"""

from __future__ import annotations

from pydantic import Field

from libs.common.resources.meta import Model, Time

PREFIX = "nodehistory"


class NodeChange(Model):
    """`what` is a field such as `kubeletVersion`, `labels.zone`, `node`. What changes often is one entry: `count` times from `time` to `until`."""

    time: Time
    what: str
    before: str = ""
    after: str = ""
    count: int = 1
    until: Time | None = None

    @property
    def last(self) -> Time:
        return self.until or self.time


class NodeHistory(Model):
    """Oldest first. `node_uid`: of the node that the machine is now; `digest` of what the node was like after the last change."""

    machine: str = ""
    node_uid: str = ""
    digest: str = ""
    dropped: int = Field(default=0, description="Older changes that are not kept.")
    changes: list[NodeChange] = Field(default_factory=list)


def history_key(machine: str) -> str:
    return f"{PREFIX}.{machine}"
