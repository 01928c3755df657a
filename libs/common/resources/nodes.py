"""Kinds of the node_registry: Node, the identity and condition of every node of every cluster. Its history is in `node_history`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from libs.common.resources.meta import ConditionedStatus, Model, Resource, Time

IDENTITY_COLLISION = "IdentityCollision"
"""Condition of the hub's own: another living node says that it is the same machine."""


class NodeSpec(Model):
    cluster: str = Field(description="Name of the Cluster.")
    cluster_uid: str = Field(description="uid of the Cluster.")
    node_name: str = Field(description="The node's name in its cluster.")
    node_uid: str = Field(default="", description="The node's uid in its cluster.")


class NodeAddress(Model):
    type: str = ""
    address: str = ""


class NodeTaint(Model):
    key: str = ""
    value: str = ""
    effect: str = ""


class NodeStatus(ConditionedStatus):
    """As the agent saw it; `lastObserved` says when. The node's labels are those of this object."""

    ready: bool | None = None
    unschedulable: bool = False
    roles: list[str] = Field(default_factory=list)
    kubelet_version: str = ""
    os_image: str = ""
    kernel_version: str = ""
    container_runtime: str = ""
    architecture: str = ""
    operating_system: str = ""
    internal_ip: str = Field(default="", alias="internalIP")
    addresses: list[NodeAddress] = Field(default_factory=list)
    pod_cidrs: list[str] = Field(default_factory=list, alias="podCIDRs")
    taints: list[NodeTaint] = Field(default_factory=list)
    capacity: dict[str, str] = Field(default_factory=dict)
    allocatable: dict[str, str] = Field(default_factory=dict)
    left_out: dict[str, int] = Field(
        default_factory=dict, description="What the node has so much of that not all is here → how many are not."
    )
    provider_id: str = Field(default="", alias="providerID")
    system_uuid: str = Field(default="", alias="systemUUID")
    machine_id: str = Field(default="", alias="machineID")
    boot_id: str = Field(default="", alias="bootID")
    machine: str = Field(
        default="", description="The machine that this node is: stays when it registers again, is renamed, or reboots."
    )
    first_seen: Time | None = Field(default=None, description="When this machine was first seen in this cluster.")
    reboots: int = Field(default=0, description="How often it was seen to have booted anew.")
    booted_at: Time | None = Field(default=None, description="When its present boot was first seen, if it rebooted.")
    former_names: list[str] = Field(default_factory=list, description="Names that the machine had here, newest first.")
    last_observed: Time | None = None
    observed_revision: str = Field(
        default="", description="The node's resourceVersion in its cluster when this was written."
    )


class Node(Resource):
    """A node of a cluster. Named `<cluster>.<node name>`."""

    KIND: ClassVar[str] = "Node"
    spec: NodeSpec
    status: NodeStatus = Field(default_factory=NodeStatus)
