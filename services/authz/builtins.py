"""The roles that every hub has, and how they are kept what this table says.

Inside clusters, `cluster-member` follows Kubernetes' `edit` and `cluster-viewer` its `view`, with two differences: neither reads
Secrets or makes tokens of service accounts, for who can do that can become any workload; and viewers see nodes and other objects
of the whole cluster. `main` calls `ensure_builtins` at start.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from functools import cache
from uuid import uuid4

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.access import PolicyRule, RoleTemplate, RoleTemplateSpec, Scope
from libs.common.resources.meta import GROUP, ObjectMeta
from libs.common.resources.registry import BY_MODEL, RESOURCE_TYPES
from libs.common.store.base import Store
from libs.common.store.objects import encode_unique, read

READ = ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]
ALL = ["*"]
_TRIES = 10
NAME_TAKEN = "NameTaken"
"""The condition of a custom role that stands where a built-in one should be: it came first, and an upgrade brought the other."""

_WORKLOADS = {
    "": ["configmaps", "endpoints", "persistentvolumeclaims", "pods", "replicationcontrollers", "replicationcontrollers/scale", "services"],
    "apps": ["daemonsets", "deployments", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets", "statefulsets/scale"],
    "autoscaling": ["horizontalpodautoscalers"],
    "batch": ["cronjobs", "jobs"],
    "networking.k8s.io": ["ingresses", "networkpolicies"],
    "policy": ["poddisruptionbudgets"],
}  # fmt: skip
_SEEN_IN_NAMESPACES = {
    "": [
        "bindings", "events", "limitranges", "namespaces", "namespaces/status", "persistentvolumeclaims/status", "pods/log", "pods/status",
        "replicationcontrollers/status", "resourcequotas", "resourcequotas/status", "serviceaccounts", "services/status",
    ],
    "apps": ["controllerrevisions", "daemonsets/status", "deployments/status", "replicasets/status", "statefulsets/status"],
    "autoscaling": ["horizontalpodautoscalers/status"],
    "batch": ["cronjobs/status", "jobs/status"],
    "discovery.k8s.io": ["endpointslices"],
    "events.k8s.io": ["events"],
    "networking.k8s.io": ["ingresses/status"],
    "policy": ["poddisruptionbudgets/status"],
    "metrics.k8s.io": ["pods"],
}  # fmt: skip
_SEEN_IN_CLUSTER = {
    "": ["nodes", "nodes/status", "persistentvolumes", "persistentvolumes/status"],
    "admissionregistration.k8s.io": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
    "apiextensions.k8s.io": ["customresourcedefinitions"],
    "metrics.k8s.io": ["nodes"],
    "networking.k8s.io": ["ingressclasses"],
    "node.k8s.io": ["runtimeclasses"],
    "scheduling.k8s.io": ["priorityclasses"],
    "storage.k8s.io": ["csidrivers", "csinodes", "storageclasses", "volumeattachments"],
}
_IN_PODS = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"]


def _rules(verbs: list[str], table: dict[str, list[str]]) -> list[PolicyRule]:
    return [PolicyRule(verbs=verbs, api_groups=[group], resources=resources) for group, resources in table.items()]


def _hub(verbs: list[str], *resources: str) -> PolicyRule:
    return PolicyRule(verbs=verbs, api_groups=[GROUP], resources=list(resources))


_VIEW = [*_rules(READ, _WORKLOADS), *_rules(READ, _SEEN_IN_NAMESPACES)]
_EDIT = [
    *_rules(WRITE, _WORKLOADS),
    PolicyRule(verbs=["create", "get"], api_groups=[""], resources=_IN_PODS),
    PolicyRule(verbs=["create"], api_groups=[""], resources=["pods/eviction"]),
    PolicyRule(verbs=["create", "delete", "patch", "update"], api_groups=[""], resources=["serviceaccounts"]),
]
_ADMINISTER_NAMESPACE = [
    PolicyRule(verbs=READ + WRITE, api_groups=[""], resources=["secrets"]),
    PolicyRule(verbs=READ + WRITE, api_groups=["rbac.authorization.k8s.io"], resources=["rolebindings", "roles"]),
    PolicyRule(verbs=["create"], api_groups=["authorization.k8s.io"], resources=["localsubjectaccessreviews"]),
]


def _role(
    name: str, scope: Scope, title: str, description: str, *,
    rules: list[PolicyRule] | None = None, hub: list[PolicyRule] | None = None, inherits: list[str] | None = None,
    creator_default: bool | None = None,
) -> RoleTemplate:  # fmt: skip
    spec = RoleTemplateSpec(
        display_name=title, description=description, scope=scope, rules=rules or [], hub_rules=hub or [],
        inherits=inherits or [], built_in=True, creator_default=creator_default,
    )  # fmt: skip
    return RoleTemplate(metadata=ObjectMeta(name=name), spec=spec)


def render_builtins() -> list[RoleTemplate]:
    """All built-in roles, parents before heirs."""
    return [
        _role("admin", "global", "Administrator", "Everything on the hub; inside clusters only what a cluster role gives.",
              hub=[PolicyRule(verbs=ALL, api_groups=["*"], resources=["*"])]),
        _role("auditor", "global", "Auditor", "Reads the audit log and the recorded sessions of all clusters, and the policies that say what is in them.",
              hub=[_hub(READ, "auditevents", "auditpolicies", "sessionrecordings")]),
        _role("policy-manager", "global", "Policy manager", "Writes the security policies of clusters and sees what they would break; inside clusters nothing.",
              hub=[_hub([*READ, *WRITE], "admissionpolicies", "podsecuritytemplates"), _hub(READ, "policytrials", "clusters", "projects")]),
        _role("read-only", "global", "Read only", "Sees everything on the hub but the audit log and recorded sessions, and changes nothing; inside clusters nothing.",
              hub=[_hub(READ, *sorted(kind.plural for kind in RESOURCE_TYPES))]),
        _role("user", "global", "User", "May sign in and see what is theirs, and nothing else."),
        _role("cluster-viewer", "cluster", "Cluster viewer", "Sees workloads and cluster-wide objects, no secrets.",
              rules=[*_VIEW, *_rules(READ, _SEEN_IN_CLUSTER)], hub=[_hub(READ, "clusters", "nodes")]),
        _role("cluster-member", "cluster", "Cluster member", "Runs workloads in all namespaces; no secrets, no RBAC.",
              rules=_EDIT, inherits=["cluster-viewer"]),
        _role("cluster-owner", "cluster", "Cluster owner", "Everything in the cluster, and who else may enter it.", creator_default=True,
              rules=[PolicyRule(verbs=ALL, api_groups=["*"], resources=["*"]), PolicyRule(verbs=ALL, non_resource_urls=["*"])],
              hub=[
                  _hub([*READ, "update", "patch", "delete"], "clusters"), _hub(READ, "nodes"),
                  _hub(["create"], "clusters/registration"), _hub(READ, "auditevents"), _hub(READ, "policytrials"),
                  _hub(READ + WRITE, "roletemplatebindings"), _hub([*READ, "create", "delete"], "registrationtokens"),
              ]),
        _role("cluster-node-manager", "cluster", "Cluster node manager", "Cordons, drains and labels nodes; sees workloads, no secrets.",
              rules=[
                  PolicyRule(verbs=["patch", "update"], api_groups=[""], resources=["nodes"]),
                  PolicyRule(verbs=["create"], api_groups=[""], resources=["pods/eviction"]),
              ],
              inherits=["cluster-viewer"]),
        _role("project-viewer", "project", "Project viewer", "Sees workloads in the project's namespaces, no secrets.",
              rules=_VIEW, hub=[_hub(READ, "projects")]),
        _role("project-member", "project", "Project member", "Runs workloads in the project's namespaces; no secrets, no RBAC.",
              rules=_EDIT, inherits=["project-viewer"]),
        _role("project-manager", "project", "Project manager", "Runs the project and says who is in it; no secrets, no RBAC inside clusters.",
              inherits=["project-member"],
              hub=[
                  _hub(["update", "patch"], "projects"), _hub(["create", "update"], "projects/namespaces"),
                  _hub(READ + WRITE, "roletemplatebindings"),
              ]),
        _role("project-owner", "project", "Project owner", "Runs the project: workloads, secrets, roles, and who is in it.",
              rules=_ADMINISTER_NAMESPACE, inherits=["project-member"], creator_default=True,
              hub=[
                  # Not projects/policies: whoever is limited by a quota does not raise it.
                  _hub(["update", "patch"], "projects"), _hub(["create", "update"], "projects/namespaces"),
                  _hub(READ + WRITE, "roletemplatebindings"),
              ]),
    ]  # fmt: skip


@cache
def built_in_names() -> frozenset[str]:
    """Names that no role of somebody's own can have."""
    return frozenset(role.name for role in render_builtins())


async def ensure_builtins(store: Store, now: Callable[[], datetime]) -> None:
    """Create what is missing and bring back what differs; safe with replicas. A custom role of the same name is left and told."""
    for role in render_builtins():
        for attempt in range(_TRIES):
            try:
                await _ensure(store, role, now())
                break
            except (errors.AlreadyExists, errors.Conflict):
                await asyncio.sleep(random.uniform(0, 0.02 * 2**attempt))
        else:
            raise errors.Conflict(
                f'the built-in role "{role.name}" changes faster than it can be written', name=role.name
            )


async def _ensure(store: Store, role: RoleTemplate, now: datetime) -> None:
    key = BY_MODEL[RoleTemplate].key(role.name)
    try:
        stored = await read(store, RoleTemplate, role.name)
    except errors.NotFound:
        meta = ObjectMeta(name=role.name, uid=str(uuid4()), creation_timestamp=now, generation=1)
        await store.create(key, encode_unique(role.model_copy(update={"metadata": meta})))
        log.get("authz").info("built_in_role_created", role=role.name)
        return
    if not stored.spec.built_in:
        advice = "a custom role has this name: make it again under another one, delete it, and restart authz"
        log.get("authz").error("built_in_role_name_taken", role=role.name, advice=advice)
        told = f"Herdsman has a built-in role of this name, which is missing here: {advice}"
        if stored.status.set_condition(NAME_TAKEN, True, "BuiltInRoleHasThisName", told, now):
            await store.update(key, encode_unique(stored), int(stored.metadata.resource_version or 0))
        return
    wanted = role.spec
    if stored.spec.creator_default is not None:
        # Whether makers get it is the hub's own decision.
        wanted = wanted.model_copy(update={"creator_default": stored.spec.creator_default})
    if stored.spec != wanted:
        stored.spec = wanted
        stored.metadata.generation = (stored.metadata.generation or 0) + 1
        await store.update(key, encode_unique(stored), int(stored.metadata.resource_version or 0))
        log.get("authz").info("built_in_role_updated", role=role.name)
