"""Kinds of the authz service that keep what runs in clusters in bounds: AdmissionPolicy, PodSecurityTemplate, and what a trial of one found.

`libs.common.policies` makes of them what a cluster holds; `services.authz` says who may write them.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from libs.common.resources.meta import ConditionedStatus, Label, Model, Resource, Time
from libs.common.resources.selectors import LabelSelector

Stage = Literal["Audit", "Enforce"]
Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
SecurityLevel = Literal["privileged", "baseline", "restricted"]
STAGE = "Audit: what it forbids is let through, with a warning. Enforce: it is refused."
AT_ONCE = "True: it may enforce, and a change of it may count, without having stood in Audit first."


class ClusterChoice(Model):
    """Exactly one of global, names and selector."""

    all: bool = Field(default=False, alias="global", description="True: every cluster, also those that come later.")
    names: list[Label] = Field(default_factory=list, max_length=1000, description="Names of Clusters.")
    selector: LabelSelector | None = Field(
        default=None, description="Every Cluster whose labels fit, at each moment; one without a condition is refused."
    )


class ResourceRule(Model):
    """As admissionregistration.k8s.io/v1 NamedRuleWithOperations."""

    api_groups: list[str] = Field(min_length=1, max_length=64, description='"" is the core group, `*` every one.')
    api_versions: list[str] = Field(
        min_length=1,
        max_length=64,
        description="Such as v1. With `*`, here or above, the cluster does not check the types in expressions.",
    )
    resources: list[str] = Field(min_length=1, max_length=256, description="Plurals, such as pods or pods/exec.")
    operations: list[Operation] = Field(min_length=1, max_length=4)
    resource_names: list[str] = Field(default_factory=list, max_length=256, description="Empty = all.")
    scope: Literal["*", "Namespaced", "Cluster"] = "*"


class MatchConstraints(Model):
    """Which requests the policy is about; as in a ValidatingAdmissionPolicy."""

    resource_rules: list[ResourceRule] = Field(min_length=1, max_length=32)
    exclude_resource_rules: list[ResourceRule] = Field(default_factory=list, max_length=32)
    namespace_selector: LabelSelector | None = None
    object_selector: LabelSelector | None = None


class NamedExpression(Model):
    name: str = Field(max_length=63)
    expression: str = Field(max_length=8192, description="CEL.")


class Validation(Model):
    expression: str = Field(max_length=8192, description="CEL; false = the request violates the policy.")
    message: str = Field(max_length=512, description="What whoever is refused reads: one line.")
    reason: Literal["Invalid", "Forbidden", "Unauthorized", "RequestEntityTooLarge"] = "Invalid"


class PolicySpec(Model):
    """What policies of both kinds have: where they count, and whether they refuse."""

    description: str = Field(default="", max_length=4096)
    stage: Stage = Field(default="Audit", description=STAGE)
    enforce_at_once: bool = Field(default=False, description=AT_ONCE)
    clusters: ClusterChoice
    projects: list[Label] = Field(
        default_factory=list, max_length=200, description="Only in namespaces of these projects; empty = in all."
    )
    exempt_namespaces: list[Label] = Field(
        default_factory=list,
        max_length=500,
        description="It does not count in these, nor in the cluster's own and the agent's.",
    )


class AdmissionPolicySpec(PolicySpec):
    match_constraints: MatchConstraints
    match_conditions: list[NamedExpression] = Field(
        default_factory=list, max_length=32, description="Requests that meet all of them are looked at."
    )
    variables: list[NamedExpression] = Field(default_factory=list, max_length=64)
    validations: list[Validation] = Field(min_length=1, max_length=64)
    failure_policy: Literal["Fail", "Ignore"] = Field(
        default="Fail", description="What an expression that cannot be evaluated counts as: a violation, or nothing."
    )


class PolicyCluster(Model):
    """How far one cluster is, and what would break there."""

    name: str
    state: Literal["Applied", "Pending", "Drifted", "Failed"] = Field(
        description="Applied; Pending: not taken over yet, perhaps because the cluster is away; Drifted: somebody changed it there within the last hour, and it was put right; Failed: see the message."
    )
    generation: int = Field(default=0, description="The version that the cluster holds; 0 = none.")
    since: Time
    message: str = ""
    violations: int | None = Field(default=None, description="Objects there that the last trial found to violate it.")
    looked: int | None = Field(default=None, description="Objects that the last trial looked at.")
    tried_at: Time | None = None


class PolicyStatus(ConditionedStatus):
    """Conditions: Applied; Drifted while a cluster's was put right within the last hour."""

    clusters: list[PolicyCluster] = Field(default_factory=list)


class AdmissionPolicy(Resource):
    """A ValidatingAdmissionPolicy (CEL, checked by each API server itself) for clusters. Nothing is sent anywhere to be judged."""

    KIND: ClassVar[str] = "AdmissionPolicy"
    spec: AdmissionPolicySpec
    status: PolicyStatus = Field(default_factory=PolicyStatus)


class SecurityMode(Model):
    level: SecurityLevel
    version: str = Field(
        default="latest", max_length=16, description="latest, or a version of Kubernetes such as v1.34."
    )


class PodSecurityTemplateSpec(PolicySpec):
    enforce: SecurityMode | None = Field(
        default=None, description="Pods that violate it are refused, in stage Enforce."
    )
    audit: SecurityMode | None = Field(
        default=None, description="Pods that violate it are noted in the cluster's audit log."
    )
    warn: SecurityMode | None = Field(default=None, description="Who makes pods that violate it is warned.")


class PodSecurityTemplate(Resource):
    """The Pod Security levels of namespaces. Where several speak of one, the strictest counts."""

    KIND: ClassVar[str] = "PodSecurityTemplate"
    spec: PodSecurityTemplateSpec
    status: PolicyStatus = Field(default_factory=PolicyStatus)


class PolicyTrialSpec(Model):
    policy_kind: Literal["AdmissionPolicy", "PodSecurityTemplate"]
    policy: Label
    policy_uid: str
    cluster: Label
    cluster_uid: str


class Offender(Model):
    """One object that the policy would refuse."""

    resource: str = ""
    namespace: str = ""
    name: str = ""
    message: str = ""


class PolicyTrialStatus(ConditionedStatus):
    generation: int = Field(default=0, description="The version of the policy that was tried.")
    at: Time | None = None
    looked: int = 0
    violations: int = 0
    untried: int = Field(default=0, description="Objects of which the cluster did not say.")
    complete: bool = Field(
        default=False, description="False: there are more objects than a trial looks at, or it ended early."
    )
    offenders: list[Offender] = Field(default_factory=list, description="The first of them.")
    message: str = ""


class PolicyTrial(Resource):
    """What would break: what the objects of one cluster say to one policy. Written by the hub when the cluster's agent has tried it."""

    KIND: ClassVar[str] = "PolicyTrial"
    spec: PolicyTrialSpec
    status: PolicyTrialStatus = Field(default_factory=PolicyTrialStatus)
