"""Role templates, projects and a cluster's name → the desired set of that cluster. Pure, and independent of the order of its input.

Memberships are no input: a role in a cluster is one ClusterRole and one binding to a group whose members only the front
door knows, in a project one such binding for each namespace (`render_projects`), so the set does not change when people come and go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from libs.common.access.principal import NAMESPACE_VIEWERS, cluster_group
from libs.common.access.roles import EffectiveRole
from libs.common.contracts.messages import DesiredPart, DesiredSet
from libs.common.kube.objects import content_hash, set_hash
from libs.common.resources.access import PolicyRule
from libs.common.resources.projects import Project
from services.cluster_controller.model import role_name
from services.cluster_controller.render_projects import group_namespaces, render_project

ROLES_PART = "roles"
RBAC = "rbac.authorization.k8s.io"
REPLY_LIMIT_BYTES = 512 << 10
"""An answer holds at most about so much; the agent asks again with what it has until nothing differs."""
_LABELS = {"app.kubernetes.io/managed-by": "herdsman", "management.herdsman.dev/part": ROLES_PART}


def render_desired(
    roles: Mapping[str, EffectiveRole], cluster: str, projects: Iterable[Project] = ()
) -> list[DesiredPart]:
    """All parts of one cluster's desired set."""
    rendered = {ROLES_PART: render_roles(roles, cluster)}
    for name, (project, namespaces) in group_namespaces(cluster, projects).items():
        rendered[name] = render_project(roles, project, namespaces)
    return [
        DesiredPart(name=name, hash=content_hash(objects), objects=objects)
        for name, objects in sorted(rendered.items())
    ]


def render_roles(roles: Mapping[str, EffectiveRole], cluster: str) -> list[dict[str, Any]]:
    """One ClusterRole for each role of scope cluster or project, for each cluster role its binding in this cluster, and the hub's own group."""
    objects: list[dict[str, Any]] = _render_hub_group()
    for name in sorted(roles):
        role = roles[name]
        if role.scope == "global":
            continue
        objects.append(
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": "ClusterRole",
                "metadata": {"name": role_name(name), "labels": dict(_LABELS)},
                "rules": _render_rules(role.rules),
            }
        )
        if role.scope == "cluster":
            objects.append(
                {
                    "apiVersion": f"{RBAC}/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": role_name(name), "labels": dict(_LABELS)},
                    "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role_name(name)},
                    "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": cluster_group(cluster, name)}],
                }
            )
    return objects


def _render_hub_group() -> list[dict[str, Any]]:
    """What the front door itself may ask a cluster: for namespaces, when a member of projects wants to see theirs (decision 0029)."""
    name = NAMESPACE_VIEWERS
    rules = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]}]
    return [
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": dict(_LABELS)},
            "rules": rules,
        },
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": dict(_LABELS)},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": name}],
        },
    ]


def select_desired(
    parts: Iterable[DesiredPart], have: Mapping[str, str], limit_bytes: int = REPLY_LIMIT_BYTES
) -> DesiredSet:
    """What an agent that has `have` must be sent. At least one part that differs is in it, however large."""
    known = sorted(parts, key=lambda part: part.name)
    sent: list[DesiredPart] = []
    size = 0
    for part in known:
        if have.get(part.name) == part.hash:
            continue
        size += len(part.model_dump_json())
        if sent and size > limit_bytes:
            break
        sent.append(part)
    return DesiredSet(hash=set_hash({p.name: p.hash for p in known}), names=[p.name for p in known], parts=sent)


def _render_rules(rules: Iterable[PolicyRule]) -> list[dict[str, Any]]:
    """RBAC's form. The API server refuses rules that name both resources and URLs, or resources of no group: split or left out."""
    rendered: list[dict[str, Any]] = []
    for rule in rules:
        if rule.resources and rule.api_groups:
            item: dict[str, Any] = {
                "apiGroups": list(rule.api_groups),
                "resources": list(rule.resources),
                "verbs": list(rule.verbs),
            }
            if rule.resource_names:
                item["resourceNames"] = list(rule.resource_names)
            if item not in rendered:
                rendered.append(item)
        if rule.non_resource_urls:
            item = {"nonResourceURLs": list(rule.non_resource_urls), "verbs": list(rule.verbs)}
            if item not in rendered:
                rendered.append(item)
    return rendered
