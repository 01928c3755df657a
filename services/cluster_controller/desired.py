"""What each cluster should hold now, remembered as hashes: objects are rendered when a hash must be known, and when an agent lacks them.

A change costs what it touches: one project or policy is rendered again for its own clusters, everything only when a role changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from libs.common.access.roles import EffectiveRole
from libs.common.contracts.messages import DesiredPart, DesiredSet
from libs.common.kube.objects import content_hash
from libs.common.resources.projects import Project, ProjectNamespace
from services.cluster_controller.policies import Policies, PolicyPart
from services.cluster_controller.render import ROLES_PART, render_roles, select_desired
from services.cluster_controller.render_guard import GUARD_PART, render_guard
from services.cluster_controller.render_projects import group_namespaces, render_project
from services.cluster_controller.view import HasRoles, Projects


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A part's hash, and what it was rendered from."""

    hash: str
    source: object = None
    namespaces: tuple[str, ...] = ()


class DesiredSets:
    """Answers for any cluster by name. It holds no object, so a thousand clusters cost a thousand times some hashes."""

    def __init__(self, roles: HasRoles, projects: Projects, policies: Policies | None = None) -> None:
        self._source = roles
        self._projects = projects
        self._policies = policies
        self._roles: Mapping[str, EffectiveRole] | None = None
        self._known: dict[str, dict[str, _Rendered]] = {}

    def hashes(self, cluster: str) -> dict[str, str]:
        """Part name → hash."""
        roles = self._current_roles()
        before = self._known.get(cluster, {})
        roles_part = before.get(ROLES_PART) or _Rendered(content_hash(render_roles(roles, cluster)))
        known = {ROLES_PART: roles_part}
        for name, (project, entries) in self._groups(cluster).items():
            names = tuple(entry.namespace for entry in entries)
            part = before.get(name)
            if part is None or part.source is not project or part.namespaces != names:
                part = _Rendered(content_hash(render_project(roles, project, entries)), project, names)
            known[name] = part
        for name, policy in self._policy_parts(cluster).items():
            part = before.get(name)
            if part is None or part.source != policy.version:
                part = _Rendered(content_hash(policy.render()), policy.version)
            known[name] = part
        self._known[cluster] = known
        return {name: part.hash for name, part in known.items()}

    def select(self, cluster: str, have: Mapping[str, str]) -> DesiredSet:
        """What an agent that has `have` must be sent."""
        hashes = self.hashes(cluster)
        roles = self._current_roles()
        groups, policies = self._groups(cluster), self._policy_parts(cluster)
        parts: list[DesiredPart] = []
        for name, hash_ in hashes.items():
            objects: list[dict[str, Any]] = []
            if have.get(name) == hash_:
                pass  # not sent
            elif name == ROLES_PART:
                objects = render_roles(roles, cluster)
            elif name in policies:
                objects = policies[name].render()
            else:
                objects = render_project(roles, *groups[name])
            parts.append(DesiredPart(name=name, hash=hash_, objects=objects))
        return select_desired(parts, have)

    def forget(self, cluster: str) -> None:
        """The cluster is gone."""
        self._known.pop(cluster, None)

    def _groups(self, cluster: str) -> dict[str, tuple[Project, list[ProjectNamespace]]]:
        uid = self._source.current.clusters.get(cluster, "")
        return group_namespaces(cluster, self._projects.in_cluster(cluster), uid)

    def _policy_parts(self, cluster: str) -> Mapping[str, PolicyPart]:
        if self._policies is None:
            return {}
        parts, username = self._policies.parts(cluster), self._policies.agent_of(cluster)
        guarded = sorted((p for p in self._projects.in_cluster(cluster) if p.spec.guarded), key=lambda p: p.name)
        if guarded and username:
            version = (username, tuple((p.uid, p.metadata.generation) for p in guarded))
            parts[GUARD_PART] = PolicyPart(version, lambda: render_guard(guarded, username))
        return parts

    def _current_roles(self) -> Mapping[str, EffectiveRole]:
        roles = self._source.current.roles
        if roles is not self._roles:
            self._roles = roles
            self._known.clear()
        return roles
