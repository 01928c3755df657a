"""What roles say to a question about rights, and by which inheritance. Pure; `explain` finds who has the roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from libs.common.access.indirect import REACH, WAYS_TO_A_SECRET, is_in_namespaces
from libs.common.access.roles import EffectiveRole
from libs.common.access.rules import READ_VERBS, Names, Right, RuleSet
from libs.common.resources.access import RoleTemplate
from libs.common.resources.meta import GROUP


@dataclass(frozen=True, slots=True)
class Question:
    """`resource` may be `pods/exec`. Of the hub's own API group: on the hub, `cluster` and `project` say what the object belongs to.

    Else inside `cluster`, "" = in any; `namespace` "" = in some namespace or over all. Without a verb: which roles, whatever they allow.
    """

    verb: str = ""
    group: str = ""
    resource: str = ""
    name: str = ""
    cluster: str = ""
    namespace: str = ""
    project: str = ""

    @property
    def on_hub(self) -> bool:
        return self.group == GROUP


@dataclass(frozen=True, slots=True)
class Said:
    """What one role says to a question. `member`: nothing, but whoever has a role there may see that there is a cluster."""

    rights: tuple[str, ...] = ()
    inherits: tuple[str, ...] = ()
    only_names: tuple[str, ...] = ()
    how: str = ""
    member: bool = False


ANY = Said()
_MEMBER = Said(("get, list and watch clusters (by having a role there)",), member=True)


def said_by_roles(
    roles: Mapping[str, EffectiveRole], templates: Mapping[str, RoleTemplate], question: Question
) -> dict[str, list[Said]]:
    """Role → what it says to the question, for the roles that say anything; the ways round come after it."""
    asked = _rights_asked(question)
    said: dict[str, list[Said]] = {}
    for role in roles.values():
        own = {
            how: found
            for how, rights in asked.items()
            if (found := _ask(templates, role, question, how, rights)) is not None
        }
        direct = own.get("")
        # Who reads it needs no way round.
        kept = [direct] if direct is not None and not direct.only_names else list(own.values())
        if _shows_cluster(question):
            kept.append(_MEMBER)
        if kept:
            said[role.name] = kept
    return said


def _rights_asked(question: Question) -> dict[str, list[Right]]:
    """How → the rights, one of which is enough."""
    if question.verb != REACH:
        return {"": [Right(question.verb, question.group, question.resource)]}
    asked: dict[str, list[Right]] = {}
    for way in WAYS_TO_A_SECRET:
        asked.setdefault(way.how, []).extend(way.rights())
    return asked


def _ask(
    templates: Mapping[str, RoleTemplate], role: EffectiveRole, question: Question, how: str, rights: list[Right]
) -> Said | None:
    rule_set = role.hub_set if question.on_hub else role.rule_set
    if role.scope == "project" and not question.on_hub:
        rights = [right for right in rights if is_in_namespaces(right)]
    # A name is that of what was asked for: it says nothing of the pods or accounts of a roundabout way.
    name = "" if how else question.name
    found = {right: names for right in rights if (names := _names(rule_set, right, name)) is None or names}
    if not found:
        return None
    only: tuple[str, ...] = ()
    if not any(names is None for names in found.values()):
        only = tuple(sorted({one for names in found.values() for one in names or ()}))
    told = tuple(sorted(right.describe() for right, names in found.items() if names is None or only))
    return Said(told, _path(templates, role, question.on_hub, list(found), name), only, how)


def _names(rule_set: RuleSet, right: Right, name: str) -> Names:
    """None = for all objects, or for the one that was asked for; else the names it is limited to."""
    names = rule_set.names(right.verb, right.group, right.resource)
    if not name or names is None:
        return names
    return None if name in names else frozenset()


def _path(
    templates: Mapping[str, RoleTemplate], role: EffectiveRole, on_hub: bool, rights: list[Right], name: str
) -> tuple[str, ...]:
    """The shortest way by inheritance from the role to one that says it itself."""
    queue: list[tuple[str, ...]] = [(role.name,)]
    seen = {role.name}
    while queue:
        path = queue.pop(0)
        template = templates.get(path[-1])
        if template is None or template.deleting or template.spec.scope != role.scope:
            continue
        own = RuleSet(template.spec.hub_rules if on_hub else template.spec.rules)
        if any((names := _names(own, right, name)) is None or names for right in rights):
            return path
        for parent in template.spec.inherits:
            if parent not in seen:
                seen.add(parent)
                queue.append((*path, parent))
    return (role.name,)


def _shows_cluster(question: Question) -> bool:
    return (
        question.on_hub
        and question.resource == "clusters"
        and question.verb in READ_VERBS
        and bool(question.name or question.cluster)
    )


def rights_beyond(role: EffectiveRole | None, other: EffectiveRole | None) -> list[str]:
    """What `role` allows and `other` does not, for people; None = nothing."""
    if role is None:
        return []
    inside, hub = (other.rule_set, other.hub_set) if other is not None else (RuleSet(()), RuleSet(()))
    return inside.find_lacking(role.rules) + [f"{text} (on the hub)" for text in hub.find_lacking(role.hub_rules)]
