"""Projects → what their namespaces hold in one cluster. Pure, and independent of the order of its input.

Each role of scope project is bound in each namespace, whoever holds it: a grant is then no write in any cluster, and the number of
objects depends on roles and namespaces alone. The group that is bound carries the project's uid, so a project that is made again under
the same name finds nothing of the first, also in a cluster that was away meanwhile. The namespace itself is claimed, not owned: a
`NamespaceClaim` is an order to the agent and no object of the cluster, because a namespace must never go with what named it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from libs.common.access.principal import project_group
from libs.common.access.roles import EffectiveRole
from libs.common.resources.projects import Project, ProjectNamespace
from services.cluster_controller.model import role_name

PARTS_PREFIX = "projects/"
NAMESPACES_PER_PART = 64
"""A project with more of them in one cluster is several parts, so that a change sends and applies a part, and each fits a message."""
PLACE_BITS = 32
RBAC = "rbac.authorization.k8s.io"
OBJECT_NAME = "herdsman-project"
"""Of the ResourceQuota, LimitRange and NetworkPolicy in a namespace: names that allow no colon."""
DNS_NAMESPACE = "kube-system"
PROJECT_LABEL = "management.herdsman.dev/project"
"""The agent keeps it on each namespace, with the project's name."""


def group_namespaces(
    cluster: str, projects: Iterable[Project], uid: str = ""
) -> dict[str, tuple[Project, list[ProjectNamespace]]]:
    """Part name → the project and its namespaces in `cluster` that the part holds. `uid` is the cluster's, where it is known: what came into a project
    with an earlier cluster of the name is none of this one's.

    A namespace that two projects name belongs to the older one, as the project service will decide when it sees both.
    """
    owner: dict[str, Project] = {}
    entries: dict[str, list[ProjectNamespace]] = {}
    known = [p for p in projects if not p.deleting]
    for project in sorted(known, key=_age):
        for entry in project.spec.namespaces:
            if uid and entry.cluster_uid not in ("", uid):
                continue
            if entry.cluster == cluster and owner.setdefault(entry.namespace, project) is project:
                entries.setdefault(project.name, []).append(entry)
    parts: dict[str, tuple[Project, list[ProjectNamespace]]] = {}
    for project in known:
        for name, group in _split(project.name, entries.get(project.name, ())):
            parts[name] = (project, group)
    return parts


def render_project(
    roles: Mapping[str, EffectiveRole], project: Project, namespaces: Iterable[ProjectNamespace]
) -> list[dict[str, Any]]:
    """The objects of a project in these of its namespaces, all in one cluster."""
    names = sorted(name for name, role in roles.items() if role.scope == "project")
    objects: list[dict[str, Any]] = []
    for entry in sorted(namespaces, key=lambda n: n.namespace):
        objects.append(_render_claim(project, entry))
        objects += _render_policies(project, entry)
        objects += [_render_binding(project, entry.namespace, role) for role in names]
    return objects


def _render_claim(project: Project, entry: ProjectNamespace) -> dict[str, Any]:
    spec: dict[str, Any] = {"project": project.name, "projectUid": project.uid}
    if entry.create:
        spec["create"] = True
    if project.spec.pod_security:
        spec["podSecurity"] = project.spec.pod_security
    if project.spec.labels:
        spec["labels"] = dict(project.spec.labels)
    if project.spec.annotations:
        spec["annotations"] = dict(project.spec.annotations)
    return {
        "apiVersion": "management.herdsman.dev/v1",
        "kind": "NamespaceClaim",
        "metadata": {"name": entry.namespace},
        "spec": spec,
    }


def _render_policies(project: Project, entry: ProjectNamespace) -> Iterator[dict[str, Any]]:
    """What keeps the namespace in bounds: its share of the quota, what containers get and may ask for, who reaches its pods."""
    metadata = {"name": OBJECT_NAME, "namespace": entry.namespace}
    if entry.share:
        yield {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": dict(entry.share)}}
    limits = project.spec.container_limits
    given = {"default": limits.default, "defaultRequest": limits.default_request, "max": limits.max}
    if any(given.values()):
        limit = {"type": "Container", **{key: dict(value) for key, value in given.items() if value}}
        yield {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": [limit]}}
    if project.spec.isolated or project.spec.default_deny:
        spec = _render_network(project)
        yield {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _render_network(project: Project) -> dict[str, Any]:
    """Who reaches the pods, and whom they reach. Names must be found: a pod that cannot ask DNS reaches nothing at all."""
    same = [{"namespaceSelector": {"matchLabels": {PROJECT_LABEL: project.name}}}] if project.spec.isolated else []
    spec: dict[str, Any] = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": same}] if same else []}
    if project.spec.default_deny:
        dns = {
            "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": DNS_NAMESPACE}}}],
            "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
        }
        spec["policyTypes"] = ["Ingress", "Egress"]
        spec["egress"] = [dns, *([{"to": same}] if same else [])]
    return spec


def _render_binding(project: Project, namespace: str, role: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role_name(role), "namespace": namespace},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role_name(role)},
        "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": project_group(project.name, project.uid, role)}],
    }


def _split(project: str, entries: Sequence[ProjectNamespace]) -> Iterator[tuple[str, list[ProjectNamespace]]]:
    """A part that is full is cut in two by the next bit of its namespaces' hashes, and no other part changes.

    A part is named by its bits without the zeros at the end: the half with 0 keeps the name of the whole, and the first is `projects/x`.
    """
    placed = [(f"{int.from_bytes(_digest(entry), 'big'):0{PLACE_BITS}b}", entry) for entry in entries]
    waiting = [("", placed)] if placed else []
    while waiting:
        bits, group = waiting.pop()
        if len(group) <= NAMESPACES_PER_PART or len(bits) == PLACE_BITS:
            name = bits.rstrip("0")
            yield f"{PARTS_PREFIX}{project}/{name}" if name else f"{PARTS_PREFIX}{project}", [e for _, e in group]
            continue
        for bit in "01":
            half = [(place, entry) for place, entry in group if place[len(bits)] == bit]
            if half:
                waiting.append((bits + bit, half))


def _digest(entry: ProjectNamespace) -> bytes:
    return hashlib.sha256(entry.namespace.encode()).digest()[: PLACE_BITS // 8]


def _age(project: Project) -> tuple[str, str]:
    created = project.metadata.creation_timestamp
    return (created.isoformat() if created else "", project.uid)
