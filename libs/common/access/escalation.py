"""Who may give what: a giver can only give what the giver holds in that scope.

Pure comparison of rule sets, reached through `Grants.covers`. There is no verb that goes round it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from libs.common.access.held import Held
from libs.common.access.roles import EffectiveRole
from libs.common.access.rules import RuleSet
from libs.common.resources.access import BindingScope, PolicyRule, RoleTemplate
from libs.common.resources.selectors import describe_selector, selector_of

if TYPE_CHECKING:
    from libs.common.access.grants import Grants


def resolve_against(template: RoleTemplate, roles: Mapping[str, EffectiveRole]) -> EffectiveRole:
    """A template that may not be stored yet, with its parents as they are in the snapshot."""
    parents = [r for n in template.spec.inherits if (r := roles.get(n)) is not None and r.scope == template.spec.scope]
    rules = tuple(template.spec.rules) if template.spec.scope != "global" else ()
    return _combine(template.name, template, rules, parents)


def find_lacking(grants: Grants, giver: Held, role: EffectiveRole, scope: BindingScope) -> list[str]:
    """Rights of `role` in `scope` that `giver` lacks there, each with where it is missing."""
    hub_roles = list(grants.roles_everywhere(giver, "global"))
    in_clusters: list[EffectiveRole] = []
    if scope.all:
        in_clusters = list(grants.roles_everywhere(giver, "cluster"))
        place = "every cluster"
    elif scope.cluster_selector:
        # Which clusters these are changes with their labels: what is held by chance in all of today's does not count.
        in_clusters = list(grants.roles_by_selector(giver, scope.cluster_selector.requirements))
        place = f"every cluster with {describe_selector(scope.cluster_selector.requirements)}"
    elif scope.cluster:
        in_clusters = list(grants.roles_in_cluster(giver, scope.cluster))
        place = f"cluster {scope.cluster}"
    elif scope.project:
        return _lacking_in_project(grants, giver, role, scope.project)
    else:
        return ["any right: the binding has no scope"]
    hub_limited = in_clusters if role.scope != "global" else []
    return _texts("the hub", _hub_rules([*hub_roles, *hub_limited]).find_lacking(role.hub_rules)) + _texts(
        place, _cluster_rules(in_clusters).find_lacking(role.rules)
    )


def list_roles(grants: Grants, held: Held) -> Iterator[tuple[EffectiveRole, BindingScope]]:
    """Every (role, scope) that counts for a holder; for comparing two people."""
    for scope_name in ("global", "cluster"):
        for role in grants.roles_everywhere(held, scope_name):
            yield role, BindingScope(all=True)
    for cluster, bound in held.clusters.items():
        here = {b.role for b in bound}
        for role in grants.roles_in_cluster(held, cluster):
            if role.name in here:
                yield role, BindingScope(cluster=cluster)
    for selected in held.selected:
        chosen = grants.roles.get(selected.role)
        if chosen is not None and chosen.scope == "cluster":
            yield chosen, BindingScope(cluster_selector=selector_of(selected.selector))
    for project in held.projects:
        for role in grants.roles_in_project(held, project):
            yield role, BindingScope(project=project)


def _lacking_in_project(grants: Grants, giver: Held, role: EffectiveRole, project: str) -> list[str]:
    """A project's rights are held by its own roles, or by cluster roles that count in each cluster the project reaches."""
    fact = grants.projects.get(project)
    if fact is None:
        return [f"any right: there is no project {project}"]
    own = list(grants.roles_in_project(giver, project))
    hub = [*grants.roles_everywhere(giver, "global"), *own]
    lacking = _texts("the hub", _hub_rules(hub).find_lacking(role.hub_rules))
    everywhere = list(grants.roles_everywhere(giver, "cluster"))
    held_in = [(f"cluster {c}", list(grants.roles_in_cluster(giver, c))) for c in sorted(fact.clusters)]
    for place, cluster_roles in held_in or [(f"project {project}", everywhere)]:
        lacking += _texts(place, _cluster_rules([*own, *cluster_roles]).find_lacking(role.rules))
    return lacking


def _combine(
    name: str, template: RoleTemplate, rules: tuple[PolicyRule, ...], parents: Iterable[EffectiveRole]
) -> EffectiveRole:
    parents = list(parents)
    all_rules = rules + tuple(rule for p in parents for rule in p.rules)
    all_hub = tuple(template.spec.hub_rules) + tuple(rule for p in parents for rule in p.hub_rules)
    return EffectiveRole(name, template.spec.scope, all_rules, all_hub, RuleSet(all_rules), RuleSet(all_hub))


def _hub_rules(roles: Iterable[EffectiveRole]) -> RuleSet:
    return RuleSet(rule for role in roles for rule in role.hub_rules)


def _cluster_rules(roles: Iterable[EffectiveRole]) -> RuleSet:
    return RuleSet(rule for role in roles for rule in role.rules)


def _texts(place: str, lacking: Iterable[str]) -> list[str]:
    return [f"{text} (in {place})" if place != "the hub" else f"{text} (on the hub)" for text in lacking]
