"""Kinds of the authz service: who may ask for which role for a while, and who decides (AccessPolicy), and one asking (AccessRequest)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from libs.common.resources.meta import ConditionedStatus, Label, Model, Name, Resource, Time

EVERYBODY = "*"
LONGEST_S = 30 * 86400

Phase = Literal["Pending", "Granted", "Denied", "Lapsed", "Ended", "Revoked"]
"""Lapsed: nobody decided in time. Ended: its time is over. Revoked: taken away before."""
Verdict = Literal["approve", "deny"]


def check_line(text: str) -> str:
    """What somebody else reads in a terminal before they decide: it must not move the cursor, nor turn the text around. Raises ValueError."""
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


Line = Annotated[str, AfterValidator(check_line)]


class PolicyScope(Model):
    """Exactly one of the five."""

    all: bool = Field(default=False, alias="global", description="True: the hub, or with a cluster role every cluster.")
    cluster: Label | None = Field(default=None, description="Name of a Cluster.")
    cluster_uid: str | None = Field(
        default=None, description="Filled in by the hub: it is for this cluster, not for a later one of the same name."
    )
    project: Label | None = Field(default=None, description="Name of a Project.")
    project_uid: str | None = Field(default=None, description="Filled in by the hub, as for a cluster.")
    any_cluster: bool = Field(default=False, description="True: whichever one cluster is asked for.")
    any_project: bool = Field(default=False, description="True: whichever one project is asked for.")


class AccessPolicySpec(Model):
    description: Line = Field(default="", max_length=1024, description="What it is for, and who looks after it.")
    roles: list[Label] = Field(min_length=1, max_length=100, description="Names of the roles that may be asked for.")
    scopes: list[PolicyScope] = Field(min_length=1, max_length=200, description="Where they may be asked for.")
    requesters: list[str] = Field(
        min_length=1,
        max_length=200,
        description="Ids of the principals who may ask, users or groups; * = whoever is signed in.",
    )
    approvers: list[str] = Field(
        min_length=1,
        max_length=200,
        description="Ids of the principals who decide. Who approves must hold the role there, as who grants it.",
    )
    approvals: int = Field(default=1, ge=1, le=5, description="How many different people have to approve.")
    break_glass: bool = Field(
        default=False,
        description="True: what is asked for is given at once, with an alarm, and has to be reviewed afterwards. Who writes such a policy must hold its roles for good.",
    )
    max_seconds: int = Field(default=3600, ge=1, le=LONGEST_S, description="The longest time that may be asked for.")


class AccessPolicyStatus(ConditionedStatus):
    pass


class AccessPolicy(Resource):
    """Who may ask for which roles, where and for how long, and who approves. Without `breakGlass` it gives nothing by itself."""

    KIND: ClassVar[str] = "AccessPolicy"
    spec: AccessPolicySpec
    status: AccessPolicyStatus = Field(default_factory=AccessPolicyStatus)


class RequestScope(Model):
    """Exactly one of global, cluster and project."""

    all: bool = Field(default=False, alias="global", description="True: the hub, or with a cluster role every cluster.")
    cluster: Label | None = Field(default=None, description="Name of the Cluster.")
    cluster_uid: str | None = Field(
        default=None, description="Filled in by the hub: it is for this cluster, not for a later one of the same name."
    )
    project: Label | None = Field(default=None, description="Name of the Project.")
    project_uid: str | None = Field(default=None, description="Filled in by the hub, as for a cluster.")


class Decision(Model):
    """Who decides gives `verdict` and `comment`; the hub fills in the rest."""

    verdict: Verdict = Field(description="approve or deny.")
    comment: Line = Field(default="", max_length=1024, description="Why.")
    by: str = Field(default="", max_length=253, description="Filled in by the hub: name of the User who decided.")
    by_uid: str = Field(default="", max_length=64, description="Filled in by the hub: uid of that User.")
    at: Time | None = Field(default=None, description="Filled in by the hub: when.")


class AccessRequestSpec(Model):
    """Can't be changed after creation, except that decisions are added."""

    role: Label = Field(description="Name of the RoleTemplate that is asked for.")
    scope: RequestScope
    duration_seconds: int = Field(ge=1, le=LONGEST_S, description="For how long, from the last approval on.")
    reason: Line = Field(min_length=1, max_length=1024, description="What it is needed for: who approves reads it.")
    break_glass: bool = Field(
        default=False,
        description="True: an emergency; a policy that allows it gives the role at once, and an alarm is raised.",
    )
    policy: Name | None = Field(
        default=None,
        description="Name of the AccessPolicy that allows to ask; filled in by the hub where one alone does.",
    )
    policy_uid: str | None = Field(default=None, description="Filled in by the hub: uid of that policy.")
    user: str = Field(default="", max_length=253, description="Filled in by the hub: name of the User who asked.")
    user_uid: str = Field(default="", max_length=64, description="Filled in by the hub: uid of that User.")
    principal: str = Field(default="", max_length=1024, description="Filled in by the hub: who gets the role.")
    decisions: list[Decision] = Field(
        default_factory=list,
        max_length=20,
        description="Who decided what. An approver adds one; none is changed or taken away.",
    )


class AccessRequestStatus(ConditionedStatus):
    phase: Phase = Field(default="Pending", description="Pending, Granted, Denied, Lapsed, Ended or Revoked.")
    approvers: list[str] = Field(default_factory=list, description="Ids of the principals who may see it and decide.")
    missing: int = Field(default=0, description="How many approvals are missing.")
    binding: str = Field(default="", description="Name of the RoleTemplateBinding that gives the role.")
    until: Time | None = Field(default=None, description="When the role ends.")
    unreviewed: bool = Field(
        default=False, description="True after an emergency, until somebody else approved what was done, or denied it."
    )
    alarmed: Time | None = Field(default=None, description="When the alarm of an emergency was raised.")


class AccessRequest(Resource):
    """Somebody asks for a role for a while. Who asks is who creates it; approved, it is a binding that ends by itself."""

    KIND: ClassVar[str] = "AccessRequest"
    spec: AccessRequestSpec
    status: AccessRequestStatus = Field(default_factory=AccessRequestStatus)
