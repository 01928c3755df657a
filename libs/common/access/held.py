"""What one principal id holds by its bindings: role names by scope, nothing resolved yet.

Kept free of roles, clusters and projects on purpose: those are looked up in the snapshot at the check, so that a change of one binding
costs one principal, and a change of a role or cluster costs none. `grants` and `live` build these; `places` finds the same by the place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from libs.common.access.bindings import AnyBinding, fact_of
from libs.common.resources.selectors import Requirement

R = TypeVar("R", "ClusterRole", "ProjectRole")


@dataclass(frozen=True, slots=True)
class ClusterRole:
    """A role in one cluster. `cluster_uid` empty = whichever cluster has the name."""

    role: str
    cluster_uid: str


@dataclass(frozen=True, slots=True)
class SelectedRole:
    """A role in every cluster whose labels fit at the moment (`LabelSelector.requirements`)."""

    role: str
    selector: tuple[Requirement, ...]


@dataclass(frozen=True, slots=True)
class ProjectRole:
    """A role in one project. Where a binding does not say which one of that name (`project_uid` empty), `bound_at` tells an earlier one from it."""

    role: str
    bound_at: datetime | None
    project_uid: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """`everywhere`: global roles, and cluster roles that count in every cluster; the role itself says which it is. Tuples are sorted, each role once."""

    everywhere: frozenset[str] = frozenset()
    clusters: Mapping[str, tuple[ClusterRole, ...]] = field(default_factory=dict)
    projects: Mapping[str, tuple[ProjectRole, ...]] = field(default_factory=dict)
    selected: frozenset[SelectedRole] = frozenset()


NOTHING = Held()


def is_counting(binding: AnyBinding, now: datetime) -> bool:
    """Whether a binding gives anything at all at `now` (`BindingFact.is_counting`)."""
    return fact_of(binding).is_counting(now)


def held_by(bindings: Iterable[AnyBinding], now: datetime) -> Held:
    """What these bindings, all of one principal id, give at `now`."""
    everywhere: set[str] = set()
    clusters: dict[str, set[ClusterRole]] = {}
    selected: set[SelectedRole] = set()
    projects: dict[str, set[ProjectRole]] = {}
    for fact in map(fact_of, bindings):
        if not fact.is_counting(now):
            continue
        if fact.everywhere:
            everywhere.add(fact.role)
        elif fact.cluster:
            clusters.setdefault(fact.cluster, set()).add(ClusterRole(fact.role, fact.cluster_uid))
        elif fact.selector:
            selected.add(SelectedRole(fact.role, fact.selector))
        else:
            projects.setdefault(fact.project, set()).add(ProjectRole(fact.role, fact.bound_at, fact.project_uid))
    return Held(
        frozenset(everywhere),
        {name: _ordered(roles) for name, roles in clusters.items()},
        {name: _ordered(roles) for name, roles in projects.items()},
        frozenset(selected),
    )


def merge_held(parts: Iterable[Held]) -> Held:
    """The union: what somebody with several principal ids (own and groups) holds."""
    parts = [part for part in parts if part is not NOTHING]
    if len(parts) <= 1:
        return parts[0] if parts else NOTHING
    clusters: dict[str, tuple[ClusterRole, ...]] = {}
    projects: dict[str, tuple[ProjectRole, ...]] = {}
    for part in parts:
        for name, cluster_roles in part.clusters.items():
            clusters[name] = _ordered({*clusters.get(name, ()), *cluster_roles})
        for name, project_roles in part.projects.items():
            projects[name] = _ordered({*projects.get(name, ()), *project_roles})
    everywhere = frozenset[str]().union(*(part.everywhere for part in parts))
    return Held(everywhere, clusters, projects, frozenset[SelectedRole]().union(*(part.selected for part in parts)))


def _ordered(roles: set[R]) -> tuple[R, ...]:
    """A tuple takes a fifth of the memory of a set, and there is one for each holder and place."""
    return tuple(roles) if len(roles) == 1 else tuple(sorted(roles, key=repr))
