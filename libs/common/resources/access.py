"""Kinds of the authz service: what a role allows (RoleTemplate) and who has it where (RoleTemplateBinding)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from libs.common.resources.meta import ConditionedStatus, Label, Model, Resource, Time
from libs.common.resources.selectors import LabelSelector

Scope = Literal["global", "cluster", "project"]


class PolicyRule(Model):
    """As rbac.authorization.k8s.io/v1 PolicyRule; `*` means all."""

    verbs: list[str] = Field(min_length=1)
    api_groups: list[str] = Field(default_factory=list)
    resources: list[str] = Field(default_factory=list)
    resource_names: list[str] = Field(default_factory=list)
    non_resource_urls: list[str] = Field(default_factory=list, alias="nonResourceURLs")


class RoleTemplateSpec(Model):
    display_name: str = Field(default="", max_length=256)
    description: str = Field(default="", max_length=4096)
    scope: Scope = Field(description="Where it can be bound: to the hub, to clusters, or to projects.")
    rules: list[PolicyRule] = Field(
        default_factory=list,
        description="Rights inside clusters, enforced by each cluster's own RBAC; not for scope global.",
    )
    hub_rules: list[PolicyRule] = Field(
        default_factory=list,
        description="Rights on the hub's own objects: all of them for scope global, those of the bound cluster or project else.",
    )
    inherits: list[str] = Field(
        default_factory=list, description="Role templates of the same scope whose rights are added."
    )
    locked: bool = Field(default=False, description="True: no new bindings.")
    creator_default: bool | None = Field(
        default=None,
        description="True: who makes a cluster (scope cluster) or a project (scope project) is given the role in it. It can be set on built-in roles, too.",
    )
    built_in: bool = Field(default=False, description="Made by Herdsman; can't be changed or deleted.")


class RoleTemplateStatus(ConditionedStatus):
    pass


class RoleTemplate(Resource):
    """A named set of rights that can be bound to principals in a scope."""

    KIND: ClassVar[str] = "RoleTemplate"
    spec: RoleTemplateSpec
    status: RoleTemplateStatus = Field(default_factory=RoleTemplateStatus)


class BindingScope(Model):
    """Exactly one of global, cluster, clusterSelector and project; `global` with a cluster role means the role in every cluster."""

    all: bool = Field(
        default=False, alias="global", description="True: the hub for a global role, every cluster for a cluster role."
    )
    cluster: Label | None = Field(default=None, description="Name of the Cluster.")
    cluster_uid: str | None = Field(
        default=None,
        description="Filled in by the hub: the binding is for this cluster, not for a later one of the same name.",
    )
    cluster_selector: LabelSelector | None = Field(
        default=None,
        description="Every Cluster whose labels fit, at each moment: one that comes later or is labelled so later is among them.",
    )
    project: Label | None = Field(default=None, description="Name of the Project.")
    project_uid: str | None = Field(
        default=None,
        description="Filled in by the hub: the binding is for this project, not for a later one of the same name.",
    )


class RoleTemplateBindingSpec(Model):
    """Can't be changed after creation, except `notAfter` and `reason`."""

    principal: str = Field(
        description="`<provider>:<user|group>:<immutable id>`; `local:user:<uid>`. `user: NAME` may be given instead.",
        default="",
    )
    user: str | None = Field(default=None, description="Name of a local User; the hub fills in the principal.")
    role: str = Field(description="Name of the RoleTemplate.")
    scope: BindingScope
    not_after: Time | None = Field(default=None, description="From this moment on the binding gives nothing.")
    reason: str = Field(default="", max_length=1024, description="Why it was given, for people.")


class RoleTemplateBindingStatus(ConditionedStatus):
    """Conditions: `SubjectReachable` is False while nobody can sign in to whom this gives the role; absent = it never was."""


class RoleTemplateBinding(Resource):
    """Gives a role to a principal in a scope. Counts from the next call on, everywhere, without a write in any cluster."""

    KIND: ClassVar[str] = "RoleTemplateBinding"
    spec: RoleTemplateBindingSpec
    status: RoleTemplateBindingStatus = Field(default_factory=RoleTemplateBindingStatus)
