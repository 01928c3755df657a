"""What one principal id holds by its bindings: role names by scope, nothing resolved yet.

Kept free of roles, clusters and projects on purpose: those are looked up in the snapshot at the check, so that a change of one binding
costs one principal, and a change of a role or cluster costs none. `grants` and `live` build these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from libs.common.resources.access import RoleTemplateBinding


@dataclass(frozen=True, slots=True)
class ClusterRole:
    """A role in one cluster. `cluster_uid` empty = whichever cluster has the name."""

    role: str
    cluster_uid: str


@dataclass(frozen=True, slots=True)
class ProjectRole:
    """A role in one project. `bound_at` tells a binding to this project from one to an earlier project of the same name."""

    role: str
    bound_at: datetime | None


@dataclass(frozen=True, slots=True)
class Held:
    """`everywhere`: global roles, and cluster roles that count in every cluster; the role itself says which it is."""

    everywhere: frozenset[str] = frozenset()
    clusters: Mapping[str, frozenset[ClusterRole]] = field(default_factory=dict)
    projects: Mapping[str, frozenset[ProjectRole]] = field(default_factory=dict)


NOTHING = Held()


def is_counting(binding: RoleTemplateBinding, now: datetime) -> bool:
    """Whether a binding gives anything at all at `now`: not expired, not being deleted, one principal, exactly one scope."""
    scope = binding.spec.scope
    one_scope = [scope.all, bool(scope.cluster), bool(scope.project)].count(True) == 1
    alive = binding.spec.not_after is None or now < binding.spec.not_after
    return alive and one_scope and bool(binding.spec.principal) and not binding.deleting


def held_by(bindings: Iterable[RoleTemplateBinding], now: datetime) -> Held:
    """What these bindings, all of one principal id, give at `now`."""
    everywhere: set[str] = set()
    clusters: dict[str, set[ClusterRole]] = {}
    projects: dict[str, set[ProjectRole]] = {}
    for binding in bindings:
        if not is_counting(binding, now):
            continue
        scope, role = binding.spec.scope, binding.spec.role
        if scope.all:
            everywhere.add(role)
        elif scope.cluster:
            clusters.setdefault(scope.cluster, set()).add(ClusterRole(role, scope.cluster_uid or ""))
        elif scope.project:
            held = ProjectRole(role, binding.metadata.creation_timestamp)
            projects.setdefault(scope.project, set()).add(held)
    return Held(
        frozenset(everywhere),
        {name: frozenset(roles) for name, roles in clusters.items()},
        {name: frozenset(roles) for name, roles in projects.items()},
    )


def merge_held(parts: Iterable[Held]) -> Held:
    """The union: what somebody with several principal ids (own and groups) holds."""
    parts = [part for part in parts if part is not NOTHING]
    if len(parts) <= 1:
        return parts[0] if parts else NOTHING
    clusters: dict[str, frozenset[ClusterRole]] = {}
    projects: dict[str, frozenset[ProjectRole]] = {}
    for part in parts:
        for name, cluster_roles in part.clusters.items():
            clusters[name] = clusters.get(name, frozenset()) | cluster_roles
        for name, project_roles in part.projects.items():
            projects[name] = projects.get(name, frozenset()) | project_roles
    return Held(frozenset().union(*(part.everywhere for part in parts)), clusters, projects)
