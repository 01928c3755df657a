"""The compiled grants: one immutable snapshot that answers who may do what on the hub, and with which groups in a cluster.

Pure: no clock, no I/O. What it knows is a `snapshot.Snapshot`. `compile_grants` builds one from resources; `live.LiveGrants` keeps one current and
is what services hold. Everybody who decides asks here: the front door, the gateway, every owner. What a snapshot does not know gives nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from libs.common.access import escalation
from libs.common.access.bindings import AnyBinding, BindingIndex, fact_of
from libs.common.access.held import NOTHING, Held, held_by, merge_held
from libs.common.access.implied import IMPLIED_RULES, is_own, is_own_right
from libs.common.access.local_groups import LocalGroups
from libs.common.access.places import find_places
from libs.common.access.principal import Principal, cluster_group, project_group
from libs.common.access.roles import EffectiveRole, resolve_roles
from libs.common.access.rules import READ_VERBS
from libs.common.access.snapshot import Snapshot, project_fact, user_fact
from libs.common.resources.access import BindingScope, PolicyRule, RoleTemplate
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import Group, User
from libs.common.resources.meta import GROUP
from libs.common.resources.projects import Project
from libs.common.resources.registry import BY_PLURAL, field_at


@dataclass(frozen=True, slots=True)
class Grants(Snapshot):
    """The decisions."""

    # ── checks on hub objects ────────────────────────────────────────────────────────────────────────────────────────

    def is_allowed(
        self, principal: Principal, verb: str, plural: str, name: str = "", cluster: str = "", subresource: str = "",
        *, project: str = "", owner: str = "",
    ) -> bool:  # fmt: skip
        """Whether the caller may do this. `cluster`, `project`, `owner`: names of what the object belongs to, if anything.

        For list and watch without a name it answers for the whole collection; `reaches` answers for any part of it.
        """
        if not self._is_admitted(principal, verb):
            return False
        if plural == "clusters":
            cluster = cluster or name
        elif plural == "projects":
            project = project or name
        elif plural == "users":
            owner = owner or name
        if is_own_right(verb, plural, subresource, own=bool(owner) and owner == principal.user):
            return True
        ids = principal.principal_ids
        if plural == "clusters" and verb in READ_VERBS and not subresource and self._is_member(ids, cluster):
            return True
        for role in self.roles_at(ids, cluster, project):
            if role.hub_set.allows(verb, GROUP, plural, subresource, name):
                return True
        return False

    def is_allowed_on(
        self, principal: Principal, verb: str, plural: str, document: Mapping[str, Any], subresource: str = ""
    ) -> bool:
        """As `is_allowed` for an existing object, of which it reads name, cluster, project and owner itself.

        An object of an earlier cluster or user of the same name belongs to neither today's cluster nor today's user.
        """
        kind = BY_PLURAL[plural]
        cluster = str(field_at(document, kind.cluster_path) or "") if kind.cluster_path else ""
        cluster_uid = field_at(document, "spec.clusterUid") or field_at(document, "spec.scope.clusterUid")
        if cluster and cluster_uid and self.clusters.get(cluster) != cluster_uid:
            cluster = ""
        project = str(field_at(document, "spec.scope.project") or "") if plural == "roletemplatebindings" else ""
        project_uid = field_at(document, "spec.scope.projectUid")
        if project and project_uid and ((fact := self.projects.get(project)) is None or fact.uid != project_uid):
            project = ""
        return self.is_allowed(
            principal, verb, plural, str(field_at(document, "metadata.name") or ""), cluster, subresource,
            project=project,
            owner=principal.user if is_own(principal, plural, document) else "",
        )  # fmt: skip

    def reaches(self, principal: Principal, verb: str, plural: str) -> bool:
        """Whether the caller has the right on at least one object that may exist: if not, a list is refused, else filtered."""
        if not self._is_admitted(principal, verb):
            return False
        if is_own_right(verb, plural, "", own=True) or (plural == "clusters" and verb in READ_VERBS):
            return True
        parts = self._parts(principal)
        return any(role.hub_set.reaches(verb, GROUP, plural) for held in parts for role in self._roles_anywhere(held))

    def names(self, principal: Principal, verb: str, plural: str) -> frozenset[str] | None:
        """Names on which roles on the whole hub give the right, for a kind that belongs to no cluster or project; None = all.

        What is the caller's own comes beside that.
        """
        found: frozenset[str] = frozenset()
        if not self._is_admitted(principal, verb):
            return found
        for role in self.roles_everywhere(self._held(principal), "global"):
            names = role.hub_set.names(verb, GROUP, plural)
            if names is None:
                return None
            found |= names
        return found

    def visible_clusters(self, principal: Principal) -> set[str] | None:
        """Names of the clusters that the caller may see; None = all."""
        if not self._is_active(principal):
            return set()
        seen = self._seen_clusters(self._held(principal))
        if principal.projects:
            within = {
                c for name in principal.projects if (p := self.projects.get(name)) is not None for c in p.clusters
            }
            seen = within & self.clusters.keys() if seen is None else within & seen
        if not principal.clusters:
            return seen
        scope = set(principal.clusters) & self.clusters.keys()
        return scope if seen is None else scope & seen

    def held_projects(self, principal: Principal) -> set[str]:
        """Names of the living projects in which the caller has a role of the project's own."""
        if not self._is_active(principal):
            return set()
        held = self._held(principal)
        found = {name for name in held.projects if any(True for _ in self.roles_in_project(held, name))}
        return found & set(principal.projects) if principal.projects else found

    # ── inside clusters ──────────────────────────────────────────────────────────────────────────────────────────────

    def synthetic_groups(self, principal: Principal, cluster_name: str, cluster_uid: str) -> tuple[str, ...]:
        """The groups that stand for the caller's roles in one cluster, sorted; () = no business there."""
        if not self._may_enter(principal, cluster_name, cluster_uid):
            return ()
        ids, only = principal.principal_ids, principal.projects
        groups: set[str] = set()
        if not only:
            # A token for some projects is not good for the cluster's own roles, though whoever has these has its projects, too.
            groups.update(cluster_group(cluster_name, r.name) for r in self.cluster_roles_at(ids, cluster_name))
        for name in self._reached(ids, cluster_name):
            if not only or name in only:
                uid = self.projects[name].uid
                groups.update(project_group(name, uid, r.name) for r in self.project_roles_at(ids, name))
        return tuple(sorted(groups))

    def project_roles(
        self, principal: Principal, cluster_name: str, cluster_uid: str
    ) -> dict[str, list[EffectiveRole]]:
        """The living projects with namespaces in one cluster in which the caller has roles, with these: those of the groups of projects that
        `synthetic_groups` gives."""
        found: dict[str, list[EffectiveRole]] = {}
        if not self._may_enter(principal, cluster_name, cluster_uid):
            return found
        ids, only = principal.principal_ids, principal.projects
        for name in self._reached(ids, cluster_name):
            roles = list(self.project_roles_at(ids, name)) if not only or name in only else []
            if roles:
                found[name] = roles
        return found

    def is_allowed_inside(
        self, principal: Principal, cluster_name: str, cluster_uid: str, verb: str, group: str, resource: str
    ) -> bool:  # fmt: skip
        """Whether a role of the cluster lets the caller do this everywhere in it. The cluster itself may know more, and decides."""
        if principal.projects or not self._may_enter(principal, cluster_name, cluster_uid):
            return False
        return any(
            role.rule_set.allows(verb, group, resource)
            for held in self._parts(principal)
            for role in self.roles_in_cluster(held, cluster_name)
        )

    # ── reviews and giving ───────────────────────────────────────────────────────────────────────────────────────────

    def rules(self, principal: Principal) -> list[PolicyRule]:
        """The caller's rights on hub objects for people to read; rights limited to a cluster or project are listed unlimited."""
        if not self._is_active(principal) or principal.is_scoped:
            return []
        rules = [
            *IMPLIED_RULES,
            *(rule for role in self._roles_anywhere(self._held(principal)) for rule in role.hub_rules),
        ]
        unique = {rule.model_dump_json(): rule for rule in rules}
        return [unique[key] for key in sorted(unique)]

    def covers(self, principal: Principal, role: RoleTemplate | EffectiveRole, scope: BindingScope) -> list[str]:
        """The rights in `role` that the caller lacks in `scope`, for people; [] = may give it there."""
        if not self._is_active(principal) or principal.read_only or principal.is_scoped:
            return ["any right: only an enabled user with an unrestricted token can give roles"]
        resolved = role if isinstance(role, EffectiveRole) else escalation.resolve_against(role, self.roles)
        return escalation.find_lacking(self, self._held(principal), resolved, scope)

    def with_held(self, held: Mapping[str, Held]) -> Grants:
        """The same moment, where this is all that anybody holds."""
        named = {name for each in held.values() for name in each.projects if name in self.projects}
        places = find_places(held, {name: self.projects[name].clusters for name in named})
        return replace(self, held=held, places=places)

    def has_role(self, principal_id: str, role: str) -> bool:
        """Whether this very principal id (not its groups) holds `role` on the whole hub or in every cluster."""
        return role in self.roles and role in self.held.get(principal_id, NOTHING).everywhere

    # ── what is held where ───────────────────────────────────────────────────────────────────────────────────────────

    def _roles_anywhere(self, held: Held) -> Iterator[EffectiveRole]:
        yield from self.roles_everywhere(held, "global")
        yield from self.roles_everywhere(held, "cluster")
        for cluster in held.clusters:
            yield from self.roles_in_cluster(held, cluster)
        for selected in held.selected:
            role = self.roles.get(selected.role)
            if role is not None and role.scope == "cluster" and self.find_selected(selected.selector):
                yield role
        for project in held.projects:
            yield from self.roles_in_project(held, project)

    def _is_member(self, ids: Sequence[str], cluster: str) -> bool:
        """Whether any role counts in this living cluster, its own or that of a project there."""
        for _ in self.cluster_roles_at(ids, cluster):
            return True
        if cluster not in self.clusters:
            return False
        return any(True for name in self._reached(ids, cluster) for _ in self.project_roles_at(ids, name))

    def _reached(self, ids: Sequence[str], cluster: str) -> set[str]:
        """The living projects with namespaces in a cluster that bindings of these ids name; whether they count, `project_roles_at` says."""
        here = self.places.clusters.get(cluster)
        return (
            set()
            if here is None
            else {name for i in ids if (held := here.get(i)) is not None for name in held.projects}
        )

    def _seen_clusters(self, held: Held) -> set[str] | None:
        if any(True for _ in self.roles_everywhere(held, "cluster")):
            return None
        seen = self._project_clusters(held)
        for role in self.roles_everywhere(held, "global"):
            names = role.hub_set.names("get", GROUP, "clusters")
            if names is None:
                return None
            seen |= names
        by_labels = (self.find_selected(selected.selector) for selected in held.selected)
        candidates = frozenset(held.clusters).union(*by_labels)
        seen |= {name for name in candidates if any(True for _ in self.roles_in_cluster(held, name))}
        return seen & self.clusters.keys()

    def _project_clusters(self, held: Held) -> set[str]:
        projects = (p for p in held.projects if any(True for _ in self.roles_in_project(held, p)))
        return {cluster for project in projects for cluster in self.projects[project].clusters}

    # ── who calls ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _may_enter(self, principal: Principal, cluster_name: str, cluster_uid: str) -> bool:
        """Whether the caller is one whose roles count, with a token that is good for this very cluster."""
        if not cluster_uid or self.clusters.get(cluster_name) != cluster_uid or not self._is_active(principal):
            return False
        return not principal.clusters or cluster_name in principal.clusters

    def _is_active(self, principal: Principal) -> bool:
        user = self.users.get(principal.user)
        return user is not None and user.enabled and user.uid == principal.user_uid

    def _is_admitted(self, principal: Principal, verb: str) -> bool:
        """A token that is good for some clusters or projects is not good for the hub; a read-only one only reads."""
        if principal.is_scoped or (principal.read_only and verb not in READ_VERBS):
            return False
        return self._is_active(principal)

    def _parts(self, principal: Principal) -> list[Held]:
        """What each of the caller's ids holds."""
        get = self.held.get
        return [held for i in principal.principal_ids if (held := get(i)) is not None]

    def _held(self, principal: Principal) -> Held:
        return merge_held(self._parts(principal))


def find_next_expiry(bindings: Iterable[AnyBinding], now: datetime) -> datetime | None:
    """The first moment after `now` at which one of these bindings stops counting."""
    counting = (fact.not_after for fact in map(fact_of, bindings) if fact.is_counting(now))
    return min((moment for moment in counting if moment is not None), default=None)


def compile_grants(
    role_templates: Iterable[RoleTemplate], bindings: Iterable[AnyBinding], clusters: Iterable[Cluster],
    users: Iterable[User], now: datetime, projects: Iterable[Project] = (), groups: Iterable[Group] = (),
) -> Grants:  # fmt: skip
    """The snapshot at `now`. The result does not depend on the order of any input."""
    clusters, facts = list(clusters), [fact_of(binding) for binding in bindings]
    index = BindingIndex(facts)
    members = LocalGroups()
    for group in groups:
        members.put(group.name, group)
    held = {principal: held_by(index.of_principal(principal), now) for principal in index.principals()}
    facts_of = {p.name: project_fact(p) for p in projects if not p.deleting}
    return Grants(
        roles=resolve_roles(role_templates),
        held={principal: part for principal, part in held.items() if part != NOTHING},
        clusters={c.name: c.uid for c in clusters},
        labels={c.name: c.metadata.labels for c in clusters if c.metadata.labels},
        users={u.name: user_fact(u) for u in users},
        projects=facts_of,
        places=find_places(held, {name: fact.clusters for name, fact in facts_of.items()}),
        local_groups=members.by_uid,
        local_group_ids=members.ids,
        next_expiry=find_next_expiry(facts, now),
    )
