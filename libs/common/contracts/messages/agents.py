"""What agents and the hub tell each other: heartbeats, observations, the desired set and what came of it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field


class Heartbeat(BaseModel):
    """Every 10 s from each agent, and at once when something in it changes."""

    agent_version: str = Field(max_length=64)
    kubernetes_version: str = Field(default="", max_length=64)
    api_server_healthy: bool = False
    api_server_message: str = Field(default="", max_length=512)
    node_count: int | None = None
    tunnels: int = 0
    applied: dict[str, str] = Field(
        default_factory=dict,
        description="Part name → hash that is applied; only agents that know no appliedSet say so.",
    )
    applied_set: str = Field(default="", max_length=64, description="Hash of the parts that are applied.")
    trusted_ca: str = Field(
        default="", max_length=64, description="Digest of the hub's certificate authorities that the agent trusts."
    )
    carrier: str = Field(
        default="", max_length=16, description="What carries its reverse connections: plain or websocket."
    )
    username: str = Field(
        default="", max_length=512, description="Whom the cluster takes the agent for; `-` = the cluster cannot say."
    )


MAX_NODE_LABELS = 128
"""Labels of a node that the hub is told. More than Kubernetes and a dozen operators set together; beyond it the hub is told that some are left out."""
MAX_NODE_TAINTS = MAX_NODE_ADDRESSES = MAX_NODE_CONDITIONS = MAX_NODE_RESOURCES = 32


class NodeObservation(BaseModel):
    """One node as the agent saw it: fields of `NodeStatus`, camelCase, and the node's labels.

    `revision`: the object's resourceVersion in its cluster. Of two observations of one node that with the lower one is the older.
    """

    name: str
    uid: str = ""
    revision: str = ""
    labels: dict[str, Any] = Field(default_factory=dict)
    status: dict[str, Any]


class NodesObserved(BaseModel):
    """All or some nodes of a cluster. `complete`: nodes that are neither in `nodes` nor in `present` are gone.

    A listing that one message cannot hold comes as several; the last is `complete` and names in `present` what the others held.
    `revision`: the newest resourceVersion that the agent had seen of any node, or of a listing, when it said so: a node that came later
    is not gone.
    """

    nodes: list[NodeObservation]
    complete: bool = False
    revision: str = ""
    present: list[str] = Field(default_factory=list)


class NamespaceObservation(BaseModel):
    """One namespace as the agent saw it. `project`: uid of the project that it is marked with; `used`: of that project's quota in it."""

    name: str = Field(max_length=63)
    uid: str = Field(default="", max_length=64)
    project: str = Field(default="", max_length=64)
    deleting: bool = False
    used: dict[Annotated[str, Field(max_length=253)], Annotated[str, Field(max_length=64)]] = Field(
        default_factory=dict, max_length=64
    )


class NamespacesObserved(BaseModel):
    """All or some namespaces of a cluster; `complete` and `present` as in NodesObserved."""

    namespaces: list[NamespaceObservation]
    complete: bool = False
    present: list[str] = Field(default_factory=list)


class Notice(BaseModel):
    """The desired set's hash changed; ask for what differs."""

    hash: str = ""
    spread_s: float = Field(
        default=1.0,
        ge=0.0,
        le=60.0,
        description="Agents that are told the same at once spread their questions over so long.",
    )


class DesiredQuery(BaseModel):
    """Which parts differ from these? `have` maps part name → applied hash."""

    have: dict[str, str] = Field(default_factory=dict)


class DesiredPart(BaseModel):
    """A named list of Kubernetes objects that the agent keeps applied; everything it owns under this name and is not listed goes."""

    name: str
    hash: str
    objects: list[dict[str, Any]]


class DesiredSet(BaseModel):
    """`parts` holds only what differs, `names` all part names; `detach` = remove everything that you own, report, and stop."""

    hash: str
    names: list[str]
    parts: list[DesiredPart]
    detach: bool = False


class PartReport(BaseModel):
    name: str
    hash: str
    objects: int = 0
    error: str = Field(default="", max_length=1024)
    repairs: int = Field(
        default=0, description="How often the agent put right what somebody else had changed, since it started."
    )
    repaired: str = Field(default="", max_length=1024, description="What it put right last.")
    remarks: str = Field(
        default="", max_length=1024, description="What the cluster finds wrong with what it has accepted."
    )


class TrialOffender(BaseModel):
    """One object that a policy would refuse."""

    resource: str = Field(default="", max_length=128)
    namespace: str = Field(default="", max_length=63)
    name: str = Field(default="", max_length=300)
    message: str = Field(default="", max_length=600)


Count = Annotated[int, Field(ge=0, le=2**53)]
"""What every reader of numbers can read, and the store can keep."""


class TrialReport(BaseModel):
    """What an agent found when it tried a policy on what is in its cluster; `trial` is the id that the order had."""

    policy_kind: str = Field(max_length=32)
    policy: str = Field(max_length=63)
    policy_uid: str = Field(max_length=64)
    generation: Count
    trial: str = Field(max_length=64)
    looked: Count = 0
    violations: Count = 0
    untried: Count = 0
    complete: bool = False
    offenders: list[TrialOffender] = Field(default_factory=list, max_length=50)
    message: str = Field(default="", max_length=1024)


class AppliedReport(BaseModel):
    """What the agent applied. With `detached` it says that everything it owned is removed; `left` lists what could not be."""

    parts: list[PartReport] = Field(default_factory=list)
    detached: bool = False
    left: list[str] = Field(default_factory=list)
