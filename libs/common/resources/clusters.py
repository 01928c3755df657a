"""Kinds of the cluster_controller: Cluster, with how it is reached and what its agent last said."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from libs.common.resources.meta import ConditionedStatus, Model, Resource, Time


class ImportSpec(Model):
    """The cluster exists already and its agent dials in."""


class ClusterSpec(Model):
    display_name: str = Field(default="", max_length=256)
    imported: ImportSpec | None = Field(default=None, description="Set: the cluster is brought in by its agent.")


class AgentStatus(Model):
    """What the agent last said about itself."""

    version: str = ""
    registered_at: Time | None = Field(default=None, description="When the registration token was exchanged.")
    last_heartbeat: Time | None = Field(
        default=None, description="Last heartbeat that was written down; at most 30 s old while connected."
    )
    public_key: str = Field(
        default="", description="The agent's public NKEY: the only identity that this cluster's agent has."
    )
    trusted_ca: str = Field(
        default="", description="Digest of the hub's certificate authorities that the agent trusts, as it last said."
    )
    carrier: str = Field(
        default="", description="What carries its reverse connections: plain, or websocket where nothing else passes."
    )
    username: str = Field(
        default="", description="Whom the cluster takes the agent for; policies do not count for what it writes."
    )


class AppliedPart(Model):
    """One part of the desired set as the agent reported it."""

    name: str
    hash: str = Field(description="SHA-256 of the part's content that is applied.")
    applied_at: Time
    objects: int = 0
    error: str = ""
    repairs: int = Field(
        default=0, description="How often the agent, since it started, has put right what somebody else had changed."
    )
    repaired: str = Field(default="", description="What it put right last, and who had changed it where that is known.")
    repaired_at: Time | None = None
    remarks: str = Field(default="", description="What the cluster finds wrong with what it has accepted.")


class ClusterStatus(ConditionedStatus):
    """Conditions: Registered, Connected, Applied, Ready; while deleting also Detached."""

    phase: str = Field(
        default="Pending", description="Pending, Active, Disconnected or Deleting: a summary of the conditions."
    )
    kubernetes_version: str = ""
    node_count: int | None = None
    agent: AgentStatus = Field(default_factory=AgentStatus)
    applied: list[AppliedPart] = Field(default_factory=list)
    behind: list[str] = Field(
        default_factory=list,
        description="Parts of what the cluster should hold that it has not applied as they are now.",
    )


class Cluster(Resource):
    """A downstream Kubernetes cluster. The name is part of its URL: /k8s/clusters/<name>/."""

    KIND: ClassVar[str] = "Cluster"
    spec: ClusterSpec = Field(default_factory=ClusterSpec)
    status: ClusterStatus = Field(default_factory=ClusterStatus)


class RegistrationTokenPrivate(Model):
    secret_hash: str = ""


class RegistrationTokenSpec(Model):
    cluster: str
    cluster_uid: str
    expires_at: Time


class RegistrationTokenStatus(ConditionedStatus):
    used_at: Time | None = Field(
        default=None, description="When an agent registered with it; it is worth nothing since."
    )


class RegistrationToken(Resource):
    """Lets one agent register for one cluster, once, until it expires. The secret is shown when it is issued."""

    KIND: ClassVar[str] = "RegistrationToken"
    spec: RegistrationTokenSpec
    status: RegistrationTokenStatus = Field(default_factory=RegistrationTokenStatus)
    private: RegistrationTokenPrivate = Field(default_factory=RegistrationTokenPrivate, exclude=True)
