"""The compiled facts, and which roles count where by them: for a holder (`Held`), and for a caller's ids by place (`Places`).

Pure, immutable. `grants` decides by it; who compares and explains rights (`escalation`, `lasting`, `explain`) looks things up here, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from libs.common.access.held import Held
from libs.common.access.places import Places
from libs.common.access.roles import EffectiveRole
from libs.common.resources.identity import User
from libs.common.resources.projects import Project
from libs.common.resources.selectors import Requirement, is_selected


@dataclass(frozen=True, slots=True)
class UserFact:
    uid: str
    principal_id: str
    enabled: bool
    group_ids: tuple[str, ...] = ()
    """Accounts at providers and their groups, whether or not they count at the moment: never too few."""


@dataclass(frozen=True, slots=True)
class ProjectFact:
    uid: str
    created_at: datetime | None
    clusters: frozenset[str]

    def is_meant(self, uid: str, bound_at: datetime | None) -> bool:
        """Whether a binding with this uid, or without one made at that time, is for this project and not for an earlier one of its name."""
        if uid:
            return uid == self.uid
        return bound_at is None or self.created_at is None or bound_at >= self.created_at


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One moment. `clusters` maps the name of each living cluster to its uid, `labels` that of each with labels to these."""

    roles: Mapping[str, EffectiveRole] = field(default_factory=dict)
    held: Mapping[str, Held] = field(default_factory=dict)
    clusters: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    users: Mapping[str, UserFact] = field(default_factory=dict)
    projects: Mapping[str, ProjectFact] = field(default_factory=dict)
    places: Places = field(default_factory=Places, compare=False, repr=False)
    """What `held` says, by place."""
    local_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """User's uid → principal ids of the hub's own groups that the user is in."""
    local_group_ids: frozenset[str] = frozenset()
    """Principal ids of all groups of the hub's own."""
    next_expiry: datetime | None = None
    """When the next binding expires: from then on this snapshot says too much."""
    _selected: dict[tuple[Requirement, ...], frozenset[str]] = field(default_factory=dict, compare=False, repr=False)

    # ── what a holder has, where ─────────────────────────────────────────────────────────────────────────────────────

    def roles_everywhere(self, held: Held, scope: str) -> Iterator[EffectiveRole]:
        """Roles of the given scope that were bound with `global: true`."""
        for name in held.everywhere:
            if (role := self.roles.get(name)) is not None and role.scope == scope:
                yield role

    def roles_in_cluster(self, held: Held, cluster: str) -> Iterator[EffectiveRole]:
        """Cluster roles that count in this living cluster, those of every cluster and those by its labels included."""
        uid = self.clusters.get(cluster)
        if uid is None:
            return
        yield from self.roles_everywhere(held, "cluster")
        for bound in held.clusters.get(cluster, ()):
            role = self.roles.get(bound.role)
            if role is not None and role.scope == "cluster" and bound.cluster_uid in ("", uid):
                yield role
        if held.selected:
            labels = self.labels.get(cluster, {})
            for selected in held.selected:
                role = self.roles.get(selected.role)
                if role is not None and role.scope == "cluster" and is_selected(selected.selector, labels):
                    yield role

    def roles_by_selector(self, held: Held, selector: tuple[Requirement, ...]) -> Iterator[EffectiveRole]:
        """Cluster roles that count in every cluster that this selects, whatever happens to labels: by this selector, or by a wider one."""
        yield from self.roles_everywhere(held, "cluster")
        for selected in held.selected:
            role = self.roles.get(selected.role)
            if role is not None and role.scope == "cluster" and set(selected.selector) <= set(selector):
                yield role

    def find_selected(self, selector: tuple[Requirement, ...]) -> frozenset[str]:
        """Names of the living clusters whose labels fit; looked for once in a snapshot."""
        found = self._selected.get(selector)
        if found is None:
            found = frozenset(name for name in self.clusters if is_selected(selector, self.labels.get(name, {})))
            self._selected[selector] = found
        return found

    def roles_in_project(self, held: Held, project: str) -> Iterator[EffectiveRole]:
        """Project roles that count in this living project."""
        fact = self.projects.get(project)
        if fact is None:
            return
        for bound in held.projects.get(project, ()):
            role = self.roles.get(bound.role)
            if role is not None and role.scope == "project" and fact.is_meant(bound.project_uid, bound.bound_at):
                yield role

    # ── what counts for the ids of a caller ──────────────────────────────────────────────────────────────────────────

    def roles_at(self, ids: Sequence[str], cluster: str = "", project: str = "") -> Iterator[EffectiveRole]:
        """Global roles, and those that count in this cluster and this project, of whoever has these ids; one may come twice."""
        known, uid = self.roles, self.clusters.get(cluster) if cluster else None
        everywhere = self.places.everywhere
        for i in ids:
            for name in everywhere.get(i, ()):
                role = known.get(name)
                if role is not None and (role.scope == "global" or (uid is not None and role.scope == "cluster")):
                    yield role
        if uid is not None:
            yield from self._bound_in_cluster(ids, cluster, uid)
        if project:
            yield from self.project_roles_at(ids, project)

    def cluster_roles_at(self, ids: Sequence[str], cluster: str) -> Iterator[EffectiveRole]:
        """Cluster roles that count in this living cluster; one may come twice."""
        uid = self.clusters.get(cluster)
        if uid is None:
            return
        known, everywhere = self.roles, self.places.everywhere
        for i in ids:
            for name in everywhere.get(i, ()):
                role = known.get(name)
                if role is not None and role.scope == "cluster":
                    yield role
        yield from self._bound_in_cluster(ids, cluster, uid)

    def project_roles_at(self, ids: Sequence[str], project: str) -> Iterator[EffectiveRole]:
        """Project roles that count in this living project; one may come twice."""
        fact, here = self.projects.get(project), self.places.projects.get(project)
        if fact is None or here is None:
            return
        for i in ids:
            for bound in here.get(i, ()):
                role = self.roles.get(bound.role)
                if role is not None and role.scope == "project" and fact.is_meant(bound.project_uid, bound.bound_at):
                    yield role

    def _bound_in_cluster(self, ids: Sequence[str], cluster: str, uid: str) -> Iterator[EffectiveRole]:
        known, here, selected = self.roles, self.places.clusters.get(cluster), self.places.selected
        if here is not None:
            for i in ids:
                if (standing := here.get(i)) is None:
                    continue
                for bound in standing.roles:
                    role = known.get(bound.role)
                    if role is not None and role.scope == "cluster" and bound.cluster_uid in ("", uid):
                        yield role
        if selected:
            labels = self.labels.get(cluster, {})
            for i in ids:
                for by_labels in selected.get(i, ()):
                    role = known.get(by_labels.role)
                    if role is not None and role.scope == "cluster" and is_selected(by_labels.selector, labels):
                        yield role


def user_fact(user: User) -> UserFact:
    return UserFact(
        user.uid, user.status.principal_id or f"local:user:{user.uid}", user.spec.enabled and not user.deleting,
        tuple(sorted({i for account in user.status.identities for i in (account.principal_id, *account.groups)})),
    )  # fmt: skip


def project_fact(project: Project) -> ProjectFact:
    clusters = frozenset(n.cluster for n in project.spec.namespaces)
    return ProjectFact(project.uid, project.metadata.creation_timestamp, clusters)
