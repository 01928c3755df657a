"""From reasons to what a caller may see of them: whose they are, by which group, and what stays hidden. Pure; for `access_reviews`.

A review is a second way to bindings and to memberships, and so asks for the same rights as the first: `get` on the binding, and `get` on
a group or user before it is said who is in the group. What is the caller's own shows always.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from libs.common.access.explain import BoundRole, Way, members_by_principal
from libs.common.access.grants import Grants
from libs.common.access.principal import Principal
from libs.common.access.sayings import Question
from libs.common.apiserver.review_kinds import AccessPath


class Sight:
    """What one caller sees. `group_names`: principal id of a group of the hub's own → its name."""

    def __init__(self, grants: Grants, caller: Principal, group_names: Mapping[str, str]) -> None:
        self.grants, self.caller = grants, caller
        self.group_names = group_names
        self.own = frozenset(caller.principal_ids)
        self.hidden = False
        self._all_bindings = grants.is_allowed(caller, "get", "roletemplatebindings")
        self._all_users = grants.is_allowed(caller, "get", "users")
        self._members = members_by_principal(grants)
        self._disabled = {fact.principal_id for fact in grants.users.values() if not fact.enabled}
        if not (self._all_bindings and self._all_users and grants.is_allowed(caller, "get", "groups")):
            self.hidden = True

    def sees_binding(self, binding: BoundRole) -> bool:
        """By right, not because it is the caller's own."""
        if self._all_bindings:
            return True
        scope, cluster, project = binding.scope, binding.scope.cluster or "", binding.scope.project or ""
        if scope.cluster_uid and self.grants.clusters.get(cluster) != scope.cluster_uid:
            cluster = ""
        if scope.project_uid and ((fact := self.grants.projects.get(project)) is None or fact.uid != scope.project_uid):
            project = ""
        return self.grants.is_allowed(
            self.caller, "get", "roletemplatebindings", binding.name, cluster, project=project
        )

    def sees_user(self, name: str) -> bool:
        return self._all_users or self.grants.is_allowed(self.caller, "get", "users", name)

    def sees_members(self, principal: str) -> bool:
        """Whether the caller may know who is in a group of the hub's own."""
        name = self.group_names.get(principal)
        return name is not None and self.grants.is_allowed(self.caller, "get", "groups", name)

    def paths(self, ways: Iterable[Way], user: str = "") -> Iterator[AccessPath]:
        """An entry for each person that the caller may see; for a group, one for it where not all who have it are told. `user`: only that one's."""
        for way in ways:
            for name, group in self._holders(way.binding):
                if not user or name == user:
                    yield _path(way, name, group)

    def _holders(self, binding: BoundRole) -> Iterator[tuple[str, str]]:
        """(user or "", group or "")."""
        principal, own = binding.principal, binding.principal in self.own
        group = self._group(principal, own=own)
        if not self.sees_binding(binding):
            if own:
                yield self.caller.user, group
            return
        members = self._members.get(principal, [])
        if not group:
            yield from self._person(binding, members)
            return
        local = principal in self.group_names
        told = (
            members
            if local and self.sees_members(principal)
            else [m for m in members if not local and self.sees_user(m)]
        )
        if own and self.caller.user not in told:
            told = [*told, self.caller.user]
        yield from ((name, group) for name in told)
        if not (local and self.sees_members(principal)):
            # Of a provider's group there may be members who never signed in.
            yield "", group

    def _group(self, principal: str, *, own: bool) -> str:
        """Its name, where the caller may know it, else its id, as in the binding; "" = no group."""
        if not is_group(principal):
            return ""
        return self.group_names.get(principal, principal) if own or self.sees_members(principal) else principal

    def _person(self, binding: BoundRole, members: list[str]) -> Iterator[tuple[str, str]]:
        if binding.principal in self._disabled:
            return
        told = [m for m in members if m in (binding.user, self.caller.user) or self.sees_user(m)]
        yield from ((name, "") for name in told)
        if not told and (members or not binding.principal.startswith("local:")):
            yield "", ""


def is_group(principal: str) -> bool:
    return principal.split(":", 2)[1:2] == ["group"]


def find_new(before: Iterable[AccessPath], after: Iterable[AccessPath], question: Question) -> list[AccessPath]:
    """Those of `after` that say something no entry of `before` says, by whichever binding."""

    def key(path: AccessPath) -> tuple[object, ...]:
        who = path.user or path.principal
        if not question.verb:
            return who, path.role, path.where
        # Where it is asked about one place, it does not matter by how wide a role it is allowed there.
        where = "" if question.cluster or question.on_hub else path.where
        return who, path.how, tuple(path.rights), tuple(path.only_names), where

    known = {key(path) for path in before}
    return [path for path in after if key(path) not in known]


def in_order(paths: Iterable[AccessPath]) -> list[AccessPath]:
    """Who reads first, then the ways round, each by name."""
    return sorted(paths, key=lambda p: (p.how, p.user or "~", p.principal, p.where, p.binding))


def _path(way: Way, user: str, group: str) -> AccessPath:
    binding = way.binding
    return AccessPath.model_construct(
        user=user, principal=binding.principal, group=group, how=way.how, rights=list(way.rights), only_names=list(way.only_names),
        where=way.place, binding=binding.name, role=binding.role, inherits=list(way.inherits), not_after=binding.until,
    )  # fmt: skip
