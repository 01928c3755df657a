"""Kinds of the authz service that say what is written down about calls: AuditPolicy. `libs.common.audit.policy` compiles them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from libs.common.resources.meta import ConditionedStatus, Model, Resource

Level = Literal["None", "Metadata", "Request", "RequestResponse"]
Stage = Literal["ResponseStarted", "ResponseComplete"]
MAX_RULES = 256


class AuditResources(Model):
    """Resources of one API group, as `audit.k8s.io/v1` GroupResources."""

    group: str = Field(default="", max_length=253, description="API group; empty = the core group, `*` = every group.")
    resources: list[str] = Field(
        default_factory=list,
        max_length=256,
        description="`pods`, `pods/exec`, `pods/*`, `*/scale`; `*` or none = all of the group with their subresources.",
    )
    resource_names: list[str] = Field(
        default_factory=list, max_length=1024, description="Names of objects; needs resources. Empty = all."
    )


class AuditRule(Model):
    """A call fits when it fits every list that is given. An empty list fits all."""

    level: Level | None = Field(
        default=None,
        description="How much is written down of a call that fits; left out: this rule says nothing about it.",
    )
    users: list[str] = Field(default_factory=list, max_length=1024, description="User names of the hub.")
    groups: list[str] = Field(
        default_factory=list,
        max_length=1024,
        description="Groups that the call has in its cluster, such as herdsman:cluster:NAME:cluster-owner; one suffices. A trailing `*` fits any rest.",
    )
    verbs: list[str] = Field(default_factory=list, max_length=64, description="get, list, watch, create, …")
    clusters: list[str] = Field(
        default_factory=list, max_length=1024, description="Names of clusters; the empty name is the hub's own API."
    )
    namespaces: list[str] = Field(
        default_factory=list, max_length=1024, description="Namespaces; the empty name is what lies in none."
    )
    resources: list[AuditResources] = Field(default_factory=list, max_length=256)
    non_resource_urls: list[str] = Field(
        default_factory=list,
        alias="nonResourceURLs",
        max_length=256,
        description="Paths that are no resource, inside the cluster; a trailing `*` fits any rest.",
    )
    omit_stages: list[Stage] = Field(
        default_factory=list, max_length=2, description="Stages of which nothing is written; counts with the level."
    )
    record_sessions: bool | None = Field(
        default=None,
        description="Whether exec and attach sessions that fit are recorded; left out: this rule says nothing about it.",
    )
    record_input: bool = Field(
        default=False,
        description="Whether a recording has what was typed, passwords included; counts together with recordSessions: true.",
    )


class AuditPolicySpec(Model):
    priority: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="Policies are asked from the lowest number up, those of one number by name; the first rule that fits counts.",
    )
    rules: list[AuditRule] = Field(min_length=1, max_length=MAX_RULES)


class AuditPolicyStatus(ConditionedStatus):
    pass


class AuditPolicy(Resource):
    """What is written down about which calls. All policies together are one list of rules; the built-in one is the last."""

    KIND: ClassVar[str] = "AuditPolicy"
    spec: AuditPolicySpec
    status: AuditPolicyStatus = Field(default_factory=AuditPolicyStatus)
