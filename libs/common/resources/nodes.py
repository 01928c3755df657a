"""Kinds of the node_registry: Node, the identity and condition of every node of every cluster."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from libs.common.resources.meta import ConditionedStatus, Model, Resource, Time


class NodeSpec(Model):
    cluster: str = Field(description="Name of the Cluster.")
    cluster_uid: str = Field(description="uid of the Cluster.")
    node_name: str = Field(description="The node's name in its cluster.")
    node_uid: str = Field(default="", description="The node's uid in its cluster.")


class NodeStatus(ConditionedStatus):
    """As the agent saw it; `lastObserved` says when."""

    ready: bool | None = None
    unschedulable: bool = False
    roles: list[str] = Field(default_factory=list)
    kubelet_version: str = ""
    os_image: str = ""
    kernel_version: str = ""
    container_runtime: str = ""
    architecture: str = ""
    internal_ip: str = Field(default="", alias="internalIP")
    capacity: dict[str, str] = Field(default_factory=dict)
    allocatable: dict[str, str] = Field(default_factory=dict)
    last_observed: Time | None = None


class Node(Resource):
    """A machine of a cluster. Named `<cluster>.<node name>`."""

    KIND: ClassVar[str] = "Node"
    spec: NodeSpec
    status: NodeStatus = Field(default_factory=NodeStatus)
