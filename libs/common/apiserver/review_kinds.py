"""AccessReview: who can do what where, and why. Answered from the grants and never stored; `surface` lists it, the gateway answers it."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from libs.common.resources.access import RoleTemplateBindingSpec, RoleTemplateSpec
from libs.common.resources.meta import Label, Model, Name, Resource, Time


class ChangedRole(Model):
    name: Label = Field(description="Name of the RoleTemplate, of one that is there or of a new one.")
    spec: RoleTemplateSpec = Field(description="What it would be.")


class AccessChange(Model):
    """Nothing of it is done."""

    add: list[RoleTemplateBindingSpec] = Field(
        default_factory=list, max_length=50, description="Bindings that would be made."
    )
    remove: list[Name] = Field(
        default_factory=list, max_length=1000, description="Names of bindings that would be deleted."
    )
    roles: list[ChangedRole] = Field(default_factory=list, max_length=20, description="Roles that would be so.")


class AccessReviewSpec(Model):
    """Without a verb: who has which role. Without a user or principal: of everybody."""

    user: str = Field(default="", max_length=253, description="Name of a User: of that one alone.")
    principal: str = Field(
        default="", max_length=1024, description="Id of a principal, as in bindings: of that one alone."
    )
    verb: str = Field(
        default="",
        max_length=63,
        description='As in a role\'s rule, or "reach" with resource secrets: whoever can read it, or come to it in a roundabout way.',
    )
    api_group: str = Field(
        default="",
        max_length=253,
        description="API group of the resource; management.herdsman.dev for the hub's own objects, else it is asked about clusters.",
    )
    resource: str = Field(default="", max_length=253, description="Plural, such as secrets or pods/exec.")
    name: str = Field(default="", max_length=253, description="Name of the object; empty = any, of the kind.")
    cluster: Label | None = Field(
        default=None,
        description="The Cluster that it is in, or that an object of the hub belongs to; empty = any.",
    )
    namespace: Label | None = Field(default=None, description="Namespace in that cluster; empty = any, or over all.")
    project: Label | None = Field(
        default=None, description="The Project that an object of the hub belongs to; without a verb: roles in that one."
    )
    what_if: AccessChange | None = Field(
        default=None, description="Ask once more as if this were done, and answer what is gained and lost."
    )
    limit: int = Field(default=10_000, ge=1, le=50_000, description="The most entries that are answered.")


class AccessPath(Model):
    """One reason: the binding gives its principal the rights at a place."""

    user: str = Field(
        default="", description="Name of the User; empty where only the principal is known, or may be seen."
    )
    principal: str = Field(description="The principal that the binding names: the user's own, or a group's.")
    group: str = Field(
        default="", description="The group by which the user has it: a Group's name, or the principal's id."
    )
    how: str = Field(default="", description="Empty = directly; else in which roundabout way a Secret is reached.")
    rights: list[str] = Field(default_factory=list, description="What is allowed.")
    only_names: list[str] = Field(
        default_factory=list, description="For objects of these names alone; empty = for all."
    )
    where: str = Field(
        description="hub, every cluster, clusters with LABELS, cluster NAME or project NAME: where the role counts."
    )
    binding: str = Field(description="Name of the RoleTemplateBinding.")
    role: str = Field(description="Name of the RoleTemplate that it binds.")
    inherits: list[str] = Field(
        default_factory=list, description="From that role on, which role inherits which, to the one that says so."
    )
    not_after: Time | None = Field(default=None, description="When the binding ends.")


class RoleChange(Model):
    role: str
    gained: list[str] = Field(default_factory=list, description="Rights that the role would have beyond today's.")
    lost: list[str] = Field(default_factory=list, description="Rights that it would have no more.")


class AccessReviewStatus(Model):
    paths: list[AccessPath] = Field(default_factory=list, description="All reasons; not with whatIf.")
    gained: list[AccessPath] = Field(default_factory=list, description="With whatIf: who could what they can't now.")
    lost: list[AccessPath] = Field(
        default_factory=list, description="With whatIf: who could no more what they can now."
    )
    roles: list[RoleChange] = Field(default_factory=list, description="With whatIf: what the roles would say.")
    everybody: bool = Field(default=False, description="True: whoever is signed in may do it, without any binding.")
    omitted: int = Field(default=0, description="How many entries the limit left out.")
    incomplete: bool = Field(
        default=False, description="True: there may be more that you may not see; others get a fuller answer."
    )
    notes: list[str] = Field(default_factory=list, description="What the answer does not say.")


class AccessReview(Resource):
    """Who can do what where, and why: by which binding, group, role and inheritance. It holds what its caller may see."""

    KIND: ClassVar[str] = "AccessReview"
    spec: AccessReviewSpec = Field(default_factory=AccessReviewSpec)
    status: AccessReviewStatus = Field(default_factory=AccessReviewStatus)
