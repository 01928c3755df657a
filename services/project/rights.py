"""Who may change a project's namespaces and what they are kept to. Asked by whatever writes a project: `strategies`, `moves`.

A namespace that comes in gives everybody who has a role in the project that role's rights there. So who brings one in holds all of
these rights in its cluster, by roles of the cluster: the mover's own role in the project counts for namespaces that are in it already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from libs.common import errors
from libs.common.access.grants import Grants
from libs.common.access.held import is_counting
from libs.common.access.lasting import grants_until
from libs.common.access.principal import Principal
from libs.common.access.rules import RuleSet
from libs.common.apiserver.creator import creator_of
from libs.common.resources.access import BindingScope, RoleTemplateBinding
from libs.common.resources.projects import Project, ProjectNamespace
from services.project import policies, rules, shares

MAX_TOLD = 5
MAKER_SETTLES_S = 30.0
"""So long after a project was made its maker's roles are waited for. authz gives none in a project that has found namespaces by then."""


def check_changes(
    grants: Grants, principal: Principal, bindings: Iterable[RoleTemplateBinding], old: Project | None, new: Project, now: datetime,
) -> None:  # fmt: skip
    """Whether the caller may make `new` of `old`. Raises Denied; the words are the same for a cluster that is absent and one unseen."""
    _check_policies(grants, principal, old, new)
    added = rules.find_added(old, new)
    removed = rules.find_removed(old, new) if old is not None else []
    entered = {n.cluster for n in added if not _is_own(old, n)}
    _check_clusters(grants, principal, new, entered, removed)
    if old is not None:
        verbs = {"create" if n.create else "update" for n in added}
        if _reshared(old, new):
            verbs.add("update")
        lacking = [verb for verb in sorted(verbs) if not may(grants, principal, verb, new.name)]
        if lacking:
            raise _denied(new, f"the right to {lacking[0]} projects/namespaces is missing")
    entered &= grants.clusters.keys()
    bindings = list(bindings)
    # Whoever makes a project may be given a role in it as soon as it is there: any that a project can have.
    any_role = any(n.create for n in new.spec.namespaces) if old is None else _awaits_maker(old, bindings, now)
    lacking = find_uncovered(grants, principal, bindings, new, entered, now, any_role=any_role)
    if lacking:
        raise _denied(
            new,
            f"its members would have rights there that you lack, or hold for a shorter time: {tell(lacking)}",
        )


def may(grants: Grants, principal: Principal, verb: str, project: str) -> bool:
    """Whether the caller may do this with the project's namespaces: `create` new ones, `update` to bring in what is there."""
    return grants.is_allowed(principal, verb, "projects", project, subresource="namespaces")


def find_uncovered(
    grants: Grants, principal: Principal, bindings: Iterable[RoleTemplateBinding], project: Project, clusters: Iterable[str],
    now: datetime, *, any_role: bool = False,
) -> list[str]:  # fmt: skip
    """Rights that roles bound in the project would give in these clusters, and the caller lacks there or holds for a shorter time.

    `any_role`: not those alone that are bound there, but any that a project can have.
    """
    clusters, bindings = sorted(clusters), list(bindings)
    lasting: dict[datetime | None, Grants] = {}
    lacking: set[str] = set()
    counting = _bound_roles(bindings, project, now)
    if any_role:
        counting |= {(role.name, None) for role in grants.roles.values()}
    for name, until in counting if clusters else ():
        role = grants.roles.get(name)
        if role is None or role.scope != "project":
            continue
        # Its rights on the hub are about the project itself, which stays the same.
        inside = replace(role, hub_rules=(), hub_set=RuleSet(()))
        held = lasting.get(until) or lasting.setdefault(until, grants_until(grants, principal, bindings, until))
        for cluster in clusters:
            lacking.update(held.covers(principal, inside, BindingScope(cluster=cluster)))
    return sorted(lacking)


def _awaits_maker(project: Project, bindings: Iterable[RoleTemplateBinding], now: datetime) -> bool:
    """Whether its maker's roles may still be on their way: authz binds them when it hears of the project, and this copy hears of that later.

    In between its maker could bring in what they may not be let into, and would have the role there a moment later.
    """
    made = project.metadata.creation_timestamp
    if made is None or not creator_of(project) or now - made >= timedelta(seconds=MAKER_SETTLES_S):
        return False
    return not any(b.name.startswith(f"creator-{project.uid}-") for b in bindings)


def tell(texts: list[str]) -> str:
    more = f" and {len(texts) - MAX_TOLD} more" if len(texts) > MAX_TOLD else ""
    return ", ".join(texts[:MAX_TOLD]) + more


def _bound_roles(
    bindings: Iterable[RoleTemplateBinding], project: Project, now: datetime
) -> set[tuple[str, datetime | None]]:
    """Roles that count in this project, each with its end. Bindings to an earlier project of the name count for nothing."""
    born = project.metadata.creation_timestamp
    found = set()
    for binding in bindings:
        made = binding.metadata.creation_timestamp
        earlier = born is not None and made is not None and made < born
        if binding.spec.scope.project == project.name and is_counting(binding, now) and not earlier:
            found.add((binding.spec.role, binding.spec.not_after))
    return found


def _check_policies(grants: Grants, principal: Principal, old: Project | None, new: Project) -> None:
    changed = policies.find_changed(old.spec if old is not None else None, new.spec)
    if changed and not may_set_policies(grants, principal, new.name):
        raise errors.Denied(
            f'cannot change {", ".join(changed)} of project "{new.name}": the right to update projects/policies is missing',
            kind="Project", name=new.name,
        )  # fmt: skip


def may_set_policies(grants: Grants, principal: Principal, project: str) -> bool:
    return grants.is_allowed(principal, "update", "projects", project, subresource="policies")


def _check_clusters(
    grants: Grants, principal: Principal, new: Project, entered: set[str], removed: list[ProjectNamespace]
) -> None:
    """Bringing in what is there, or the first namespace of a cluster, is for who may update that cluster.

    So is taking one out, which ends what it was kept to; or for who may change that for the whole project.
    """
    touched = set(entered)
    if not may_set_policies(grants, principal, new.name):
        touched |= {n.cluster for n in removed} & grants.clusters.keys()
    beyond = sorted(c for c in touched if not grants.is_allowed(principal, "update", "clusters", c, c))
    if beyond:
        raise _denied(new, f"the right to update cluster {', '.join(beyond)} is missing")


def _is_own(old: Project | None, added: ProjectNamespace) -> bool:
    """Whether it is made by the hub in a cluster in which the project is already: its members gain no cluster and nobody's things."""
    return added.create and old is not None and any(n.cluster == added.cluster for n in old.spec.namespaces)


def _reshared(old: Project, new: Project) -> bool:
    before = {rules.key_of(n): shares.given_of(n) for n in old.spec.namespaces}
    after = ((rules.key_of(n), shares.given_of(n)) for n in new.spec.namespaces)
    return any(before.get(key, given) != given for key, given in after)


def _denied(project: Project, why: str) -> errors.Denied:
    return errors.Denied(
        f'cannot change the namespaces of project "{project.name}": {why}', kind="Project", name=project.name
    )
