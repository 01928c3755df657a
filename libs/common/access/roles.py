"""Role templates resolved: each with the rights of all that it inherits, ready for checks and for rendering.

`grants` compiles with it, and whoever renders a ClusterRole for a role template takes `EffectiveRole.rules` from here, so that what is
checked and what is rendered are the same. What cannot be resolved gives nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from libs.common.access.rules import RuleSet
from libs.common.resources.access import PolicyRule, RoleTemplate, Scope

MAX_RIGHTS = 10_000
"""What one role may come to, inherited rights included: three lists of a thousand entries each would be a thousand million rights."""


@dataclass(frozen=True, slots=True)
class EffectiveRole:
    """A role with everything it inherits. `rules` count inside clusters, `hub_rules` on the hub's own objects."""

    name: str
    scope: Scope
    rules: tuple[PolicyRule, ...]
    hub_rules: tuple[PolicyRule, ...]
    rule_set: RuleSet
    hub_set: RuleSet


def resolve_role(template: RoleTemplate, by_name: Mapping[str, RoleTemplate]) -> EffectiveRole:
    """The role with its inherited rights; own rules first, then inherited ones in the order they are named."""
    chain = tuple(_inherited(template, by_name))
    in_clusters = template.spec.scope != "global"
    rules = tuple(rule for t in chain for rule in t.spec.rules) if in_clusters else ()
    hub_rules = tuple(rule for t in chain for rule in t.spec.hub_rules)
    return EffectiveRole(template.name, template.spec.scope, rules, hub_rules, RuleSet(rules), RuleSet(hub_rules))


def resolve_roles(templates: Iterable[RoleTemplate]) -> dict[str, EffectiveRole]:
    """All roles by name; those being deleted give nothing any more."""
    by_name = {t.name: t for t in templates if not t.deleting}
    return {name: resolve_role(by_name[name], by_name) for name in sorted(by_name)}


def count_rights(template: RoleTemplate, by_name: Mapping[str, RoleTemplate]) -> int:
    """How many single rights the role would come to, each name that one is limited to by itself. Takes none of them apart."""
    rules = (rule for t in _inherited(template, by_name) for rule in (*t.spec.rules, *t.spec.hub_rules))
    return sum(
        len(rule.verbs)
        * (len(rule.non_resource_urls) + len(rule.api_groups) * len(rule.resources) * max(1, len(rule.resource_names)))
        for rule in rules
    )


def find_too_large(changed: Iterable[str], by_name: Mapping[str, RoleTemplate]) -> str:
    """Why the changed roles, or those that inherit them, are more than anybody should have to compute; "" = they are not."""
    names = set(changed)
    for template in by_name.values():
        if template.name in names or not names.isdisjoint(t.name for t in _inherited(template, by_name)):
            count = count_rights(template, by_name)
            if count > MAX_RIGHTS:
                return f'role "{template.name}" would have {count} rights, and at most {MAX_RIGHTS} are possible'
    return ""


def find_cycle(template: RoleTemplate, by_name: Mapping[str, RoleTemplate]) -> list[str]:
    """The names along which `template` comes to inherit itself, e.g. ["a", "b", "a"]; [] when it does not."""
    path: dict[str, list[str]] = {name: [template.name, name] for name in template.spec.inherits}
    queue = list(path)
    while queue:
        name = queue.pop(0)
        if name == template.name:
            return path[name]
        parent = by_name.get(name)
        for grandparent in parent.spec.inherits if parent else ():
            if grandparent not in path:
                path[grandparent] = [*path[name], grandparent]
                queue.append(grandparent)
    return []


def _inherited(template: RoleTemplate, by_name: Mapping[str, RoleTemplate]) -> Iterator[RoleTemplate]:
    """The template and all that it inherits, each once; another scope, a missing or a deleted parent adds nothing."""
    seen = {template.name}
    queue = [template]
    while queue:
        current = queue.pop(0)
        yield current
        for name in current.spec.inherits:
            parent = by_name.get(name)
            if parent is None or name in seen or parent.spec.scope != template.spec.scope or parent.deleting:
                continue
            seen.add(name)
            queue.append(parent)
