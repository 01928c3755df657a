"""Role templates resolved: each with the rights of all that it inherits, ready for checks and for rendering.

`grants` compiles with it, and whoever renders a ClusterRole for a role template takes `EffectiveRole.rules` from here, so that what is
checked and what is rendered are the same. What cannot be resolved gives nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from libs.common.access.rules import RuleSet
from libs.common.resources.access import PolicyRule, RoleTemplate, Scope


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
