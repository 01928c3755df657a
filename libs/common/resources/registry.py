"""The table of all kinds: who owns each, where it is stored, how it is shown. Everything generic reads this table.

The gateway's discovery, OpenAPI and tables, the buckets, the NATS permissions and the contract files come from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from libs.common.resources import (
    access,
    audit,
    clusters,
    federation,
    identity,
    nodes,
    policies,
    projects,
    providers,
    requests,
)
from libs.common.resources.meta import Resource
from libs.common.resources.selectors import LabelSelector, describe_selector

Document = Mapping[str, Any]
Service = Literal["identity", "authz", "project", "node_registry", "cluster_controller"]
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
READ_VERBS = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`. `path` is dotted from the object's root; priority > 0 shows only with `-o wide`."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""
    render: Callable[[Document], Any] | None = field(default=None, compare=False)
    """Given the whole object, for what no single field holds; `path` is then only documentation."""


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One kind. `scope_path` is the dotted path of the field that holds the name of the cluster an object belongs to, if any."""

    plural: str
    singular: str
    model: type[Resource]
    owner: Service
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ("herdsman",)
    verbs: tuple[str, ...] = ALL_VERBS
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    """Dotted paths that field selectors accept beside metadata.name."""
    has_status: bool = True
    cluster_path: str = ""
    owner_path: str = ""
    """Dotted path of the field that names the User an object belongs to; that person always sees it."""

    @property
    def kind(self) -> str:
        return self.model.KIND

    @property
    def bucket(self) -> str:
        """One bucket per owning service; one owner writes it."""
        return self.owner

    def key(self, name: str) -> str:
        return f"{self.plural}.{name}"


def _condition(type_: str, field: str = "status") -> Callable[[Document], Any]:
    def render(doc: Document) -> Any:
        conditions = doc.get("status", {}).get("conditions", ())
        return next((c[field] for c in conditions if c.get("type") == type_), "Unknown" if field == "status" else "")

    return render


def _scope(doc: Document) -> str:
    scope = doc.get("spec", {}).get("scope", {})
    if scope.get("global"):
        return "global"
    if scope.get("clusterSelector"):
        selector = LabelSelector.model_validate(scope["clusterSelector"])
        return f"clusters/{describe_selector(selector.requirements)}"
    return f"cluster/{scope['cluster']}" if scope.get("cluster") else f"project/{scope.get('project', '')}"


def _reachable(doc: Document) -> str:
    """Of bindings: whether anybody can sign in to whom it gives the role; a binding that says nothing is fine."""
    conditions = doc.get("status", {}).get("conditions", ())
    said = next((c for c in conditions if c.get("type") == "SubjectReachable"), None)
    return "True" if said is None or said["status"] == "True" else str(said["reason"])


def _inactive(doc: Document) -> str:
    """Of users: whether it was disabled because nobody used it."""
    return str(_condition("Inactive")(doc) == "True")


def _applied_clusters(doc: Document) -> str:
    """`2/3`: clusters that hold what the project says, of those in which it has namespaces."""
    clusters = doc.get("status", {}).get("clusters", ())
    return f"{sum(c.get('state') == 'Applied' for c in clusters)}/{len(clusters)}"


def _used(doc: Document) -> str:
    """`pods 3/10, limits.cpu 500m/2`; empty without a quota."""
    quota, used = doc.get("spec", {}).get("quota", {}), doc.get("status", {}).get("used", {})
    return ", ".join(f"{name} {used.get(name, '?')}/{quota[name]}" for name in sorted(quota))


def _chosen(doc: Document) -> str:
    """Of policies: which clusters they are for."""
    choice = doc.get("spec", {}).get("clusters", {})
    if choice.get("global"):
        return "global"
    if choice.get("selector"):
        return describe_selector(LabelSelector.model_validate(choice["selector"]).requirements)
    return ",".join(choice.get("names", ()))


def _violations(doc: Document) -> str:
    """Of policies: objects that violate it, of all clusters in which it was tried; empty = in none yet."""
    tried = [c["violations"] for c in doc.get("status", {}).get("clusters", ()) if c.get("violations") is not None]
    return str(sum(tried)) if tried else ""


def _level(mode: str) -> Callable[[Document], Any]:
    return lambda doc: doc.get("spec", {}).get(mode, {}).get("level", "")


def _ready(doc: Document) -> str:
    status = doc.get("status", {})
    word = {True: "Ready", False: "NotReady", None: "Unknown"}[status.get("ready")]
    word = f"{word},SchedulingDisabled" if status.get("unschedulable") else word
    return f"{word},IdentityCollision" if _condition("IdentityCollision")(doc) == "True" else word


def _label_of_node(key: str) -> Callable[[Document], Any]:
    def render(doc: Document) -> Any:
        return (doc.get("metadata", {}).get("labels") or {}).get(key, "")

    return render


def _taints(doc: Document) -> str:
    return ",".join(
        f"{t['key']}{'=' if t.get('value') else ''}{t.get('value', '')}:{t.get('effect', '')}"
        for t in doc.get("status", {}).get("taints", ())
    )


RESOURCE_TYPES: tuple[ResourceType, ...] = (
    ResourceType(
        "users", "user", identity.User, "identity",
        columns=(
            Column("Display Name", "spec.displayName"),
            Column("Enabled", "spec.enabled", "boolean"),
            Column("Last Login", "status.lastLogin", "date"),
            Column("Last Activity", "status.lastActivityTime", "date", priority=1),
            Column("Inactive", "status.conditions", priority=1, render=_inactive),
            Column("Principal", "status.principalId", priority=1),
        ),
        selectable=("spec.enabled",),
        owner_path="metadata.name",
    ),
    ResourceType(
        "groups", "group", identity.Group, "identity",
        columns=(
            Column("Display Name", "spec.displayName"),
            Column("Members", "spec.members", "integer", render=lambda d: len(d.get("spec", {}).get("members", ()))),
            Column("Principal", "status.principalId", priority=1),
        ),
    ),
    ResourceType(
        "tokens", "token", identity.Token, "identity",
        verbs=("delete", "deletecollection", "get", "list", "watch"),
        columns=(
            Column("User", "spec.user"),
            Column("Purpose", "spec.purpose"),
            Column("Expires", "spec.expiresAt", "date"),
            Column("Last Used", "status.lastUsed", "date"),
            Column("Description", "spec.description", priority=1),
        ),
        selectable=("spec.user", "spec.purpose"),
        owner_path="spec.user",
    ),
    ResourceType(
        "identityproviders", "identityprovider", providers.IdentityProvider, "identity", short_names=("idp",),
        columns=(
            Column("Type", "spec.type"),
            Column("Enabled", "spec.enabled", "boolean"),
            Column("Ready", "status.conditions", render=_condition("Ready")),
            Column("Display Name", "spec.displayName", priority=1),
            Column("Reason", "status.conditions", priority=1, render=_condition("Ready", "reason")),
            Column("Message", "status.conditions", priority=1, render=_condition("Ready", "message")),
        ),
        selectable=("spec.type", "spec.enabled"),
    ),
    ResourceType(
        "federatedcredentials", "federatedcredential", federation.FederatedCredential, "identity", short_names=("fedcred",),
        columns=(
            Column("User", "spec.user"),
            Column("Issuer", "spec.issuer"),
            Column("Subject", "spec.subject"),
            Column("Enabled", "spec.enabled", "boolean"),
            Column("TTL", "spec.ttlSeconds", "integer", priority=1),
            Column("Description", "spec.description", priority=1),
        ),
        selectable=("spec.user", "spec.issuer", "spec.enabled"),
    ),
    ResourceType(
        "roletemplates", "roletemplate", access.RoleTemplate, "authz", short_names=("rt",),
        columns=(
            Column("Scope", "spec.scope"),
            Column("Built-in", "spec.builtIn", "boolean"),
            Column("Description", "spec.description", priority=1),
        ),
        selectable=("spec.scope",),
    ),
    ResourceType(
        "roletemplatebindings", "roletemplatebinding", access.RoleTemplateBinding, "authz", short_names=("rtb",),
        columns=(
            Column("Role", "spec.role"),
            Column("User", "spec.user"),
            Column("Scope", "spec.scope", render=_scope),
            Column("Reason", "spec.reason"),
            Column("Not After", "spec.notAfter", "date"),
            Column("Reachable", "status.conditions", render=_reachable, description="Whether anybody can sign in to whom it gives the role."),
            Column("Principal", "spec.principal", priority=1),
        ),
        selectable=("spec.role", "spec.user", "spec.principal", "spec.scope.cluster", "spec.scope.project"),
        cluster_path="spec.scope.cluster",
        owner_path="spec.user",
    ),
    ResourceType(
        "auditpolicies", "auditpolicy", audit.AuditPolicy, "authz",
        columns=(
            Column("Priority", "spec.priority", "integer"),
            Column("Rules", "spec.rules", "integer", render=lambda d: len(d.get("spec", {}).get("rules", ()))),
        ),
    ),
    ResourceType(
        "accesspolicies", "accesspolicy", requests.AccessPolicy, "authz",
        columns=(
            Column("Roles", "spec.roles", render=lambda d: ",".join(d.get("spec", {}).get("roles", ()))),
            Column("Max Seconds", "spec.maxSeconds", "integer"),
            Column("Approvals", "spec.approvals", "integer"),
            Column("Break-Glass", "spec.breakGlass", "boolean"),
            Column("Description", "spec.description", priority=1),
        ),
        owner_path="spec.requesters",
    ),
    ResourceType(
        "accessrequests", "accessrequest", requests.AccessRequest, "authz", short_names=("ar",),
        columns=(
            Column("User", "spec.user"),
            Column("Role", "spec.role"),
            Column("Scope", "spec.scope", render=_scope),
            Column("Phase", "status.phase"),
            Column("Until", "status.until", "date"),
            Column("Unreviewed", "status.unreviewed", "boolean"),
            Column("Reason", "spec.reason"),
            Column("Policy", "spec.policy", priority=1),
            Column("Missing", "status.missing", "integer", priority=1),
            Column("Binding", "status.binding", priority=1),
        ),
        selectable=("spec.user", "spec.role", "spec.policy", "spec.breakGlass", "status.phase", "status.unreviewed"),
        cluster_path="spec.scope.cluster",
        owner_path="spec.user",
    ),
    ResourceType(
        "admissionpolicies", "admissionpolicy", policies.AdmissionPolicy, "authz", short_names=("ap",),
        columns=(
            Column("Stage", "spec.stage"),
            Column("Clusters", "spec.clusters", render=_chosen),
            Column("Applied", "status.clusters", render=_applied_clusters),
            Column("Violations", "status.clusters", render=_violations, description="Objects that violate it, where it was tried."),
            Column("Drifted", "status.conditions", priority=1, render=_condition("Drifted")),
            Column("Description", "spec.description", priority=1),
        ),
        selectable=("spec.stage",),
    ),
    ResourceType(
        "podsecuritytemplates", "podsecuritytemplate", policies.PodSecurityTemplate, "authz", short_names=("pst",),
        columns=(
            Column("Stage", "spec.stage"),
            Column("Enforce", "spec.enforce", render=_level("enforce")),
            Column("Audit", "spec.audit", render=_level("audit")),
            Column("Warn", "spec.warn", render=_level("warn")),
            Column("Clusters", "spec.clusters", render=_chosen),
            Column("Applied", "status.clusters", render=_applied_clusters),
            Column("Violations", "status.clusters", render=_violations, description="Pods that violate it, where it was tried."),
            Column("Drifted", "status.conditions", priority=1, render=_condition("Drifted")),
            Column("Description", "spec.description", priority=1),
        ),
        selectable=("spec.stage",),
    ),
    ResourceType(
        "policytrials", "policytrial", policies.PolicyTrial, "authz", verbs=READ_VERBS,
        columns=(
            Column("Policy", "spec.policy"),
            Column("Cluster", "spec.cluster"),
            Column("Version", "status.generation", "integer"),
            Column("Looked", "status.looked", "integer"),
            Column("Violations", "status.violations", "integer"),
            Column("Complete", "status.complete", "boolean"),
            Column("Tried", "status.at", "date"),
            Column("Message", "status.message", priority=1),
        ),
        selectable=("spec.policy", "spec.policyKind", "spec.cluster"),
        cluster_path="spec.cluster",
    ),
    ResourceType(
        "projects", "project", projects.Project, "project",
        columns=(
            Column("Display Name", "spec.displayName"),
            Column("Namespaces", "spec.namespaces", "integer", render=lambda d: len(d.get("spec", {}).get("namespaces", ()))),
            Column("Applied", "status.clusters", render=_applied_clusters),
            Column("Used", "status.used", render=_used),
            Column("Status", "status.conditions", priority=1, render=_condition("Applied", "reason")),
            Column("Message", "status.conditions", priority=1, render=_condition("Applied", "message")),
        ),
    ),
    ResourceType(
        "projecttemplates", "projecttemplate", projects.ProjectTemplate, "project", has_status=False,
        columns=(
            Column("Display Name", "spec.displayName"),
            Column("Clusters", "spec.clusters", render=lambda d: ",".join(d.get("spec", {}).get("clusters", ()))),
            Column("Max Per Person", "spec.maxPerPerson", "integer"),
            Column("Description", "spec.description", priority=1),
        ),
    ),
    ResourceType(
        "nodes", "node", nodes.Node, "node_registry", verbs=READ_VERBS,
        columns=(
            Column("Cluster", "spec.cluster"),
            Column("Status", "status.ready", render=_ready),
            Column("Roles", "status.roles", render=lambda d: ",".join(d.get("status", {}).get("roles", ())) or "<none>"),
            Column("Version", "status.kubeletVersion"),
            Column("Internal-IP", "status.internalIP", priority=1),
            Column("OS-Image", "status.osImage", priority=1),
            Column("Kernel-Version", "status.kernelVersion", priority=1),
            Column("Container-Runtime", "status.containerRuntime", priority=1),
            Column("Zone", "metadata.labels", priority=1, render=_label_of_node("topology.kubernetes.io/zone")),
            Column("Instance-Type", "metadata.labels", priority=1, render=_label_of_node("node.kubernetes.io/instance-type")),
            Column("Taints", "status.taints", priority=1, render=_taints),
            Column("Reboots", "status.reboots", "integer", priority=1),
            Column("Machine", "status.machine", priority=1),
        ),
        selectable=("spec.cluster", "spec.nodeName", "status.machine"),
        cluster_path="spec.cluster",
    ),
    ResourceType(
        "clusters", "cluster", clusters.Cluster, "cluster_controller",
        columns=(
            Column("Phase", "status.phase"),
            Column("Version", "status.kubernetesVersion"),
            Column("Nodes", "status.nodeCount", "integer"),
            Column("Connected", "status.conditions", render=_condition("Connected")),
            Column("Agent", "status.agent.version", priority=1),
            Column("Last Heartbeat", "status.agent.lastHeartbeat", "date", priority=1),
        ),
        selectable=("status.phase",),
        cluster_path="metadata.name",
    ),
    ResourceType(
        "registrationtokens", "registrationtoken", clusters.RegistrationToken, "cluster_controller",
        verbs=("delete", "deletecollection", "get", "list", "watch"),
        columns=(
            Column("Cluster", "spec.cluster"),
            Column("Expires", "spec.expiresAt", "date"),
            Column("Used", "status.usedAt", "date"),
        ),
        selectable=("spec.cluster",),
        cluster_path="spec.cluster",
    ),
)  # fmt: skip

BY_PLURAL: Mapping[str, ResourceType] = {t.plural: t for t in RESOURCE_TYPES}
BY_MODEL: Mapping[type[Resource], ResourceType] = {t.model: t for t in RESOURCE_TYPES}
BY_KIND: Mapping[str, ResourceType] = {t.kind: t for t in RESOURCE_TYPES}
BUCKETS: tuple[str, ...] = tuple(dict.fromkeys(t.bucket for t in RESOURCE_TYPES))


def field_at(document: Document, path: str) -> Any:
    """The value at a dotted path, or None where any part of the path is missing."""
    value: Any = document
    for part in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value
