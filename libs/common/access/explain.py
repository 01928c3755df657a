"""Who can do what where, and why: each way from a binding over a role to a right, found by walking the bindings. Pure.

`grants` answers yes or no and keeps no reasons; here the reasons are found, and whether a binding counts at a place is asked of the
same snapshot, so that the two can't disagree. The gateway's `access_reviews` calls this, and leaves out what its caller may not see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from libs.common.access import escalation
from libs.common.access.grants import Grants
from libs.common.access.held import Held, held_by
from libs.common.access.implied import READABLE_BY_ALL
from libs.common.access.roles import EffectiveRole, resolve_roles
from libs.common.access.rules import READ_VERBS
from libs.common.access.sayings import ANY, Question, Said, rights_beyond, said_by_roles
from libs.common.resources.access import BindingScope, RoleTemplate, RoleTemplateBinding
from libs.common.resources.selectors import describe_selector

_ALWAYS = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BoundRole:
    """One binding, as far as a review needs it. `held`: what it gives while it counts, ready to be asked of a snapshot."""

    name: str
    principal: str
    user: str
    role: str
    scope: BindingScope
    until: datetime | None
    held: Held


def bound_role(binding: RoleTemplateBinding) -> BoundRole:
    spec = binding.spec
    held = held_by([binding], _ALWAYS)
    return BoundRole(binding.name, spec.principal, spec.user or "", spec.role, spec.scope, spec.not_after, held)


@dataclass(frozen=True, slots=True)
class Way:
    """One reason: `binding` gives its principal `rights` at `place`. `inherits`: the roles from the bound one to the one that says so.

    `how` "" = directly; else in which roundabout way a Secret is reached (`indirect`). `only_names`: for these objects alone.
    """

    binding: BoundRole
    place: str
    rights: tuple[str, ...] = ()
    inherits: tuple[str, ...] = ()
    only_names: tuple[str, ...] = ()
    how: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """One moment: the snapshot, and what it was made of. `namespaces`: project → (cluster, namespace) of each that it holds."""

    grants: Grants
    bindings: tuple[BoundRole, ...]
    templates: Mapping[str, RoleTemplate]
    now: datetime
    namespaces: Mapping[str, frozenset[tuple[str, str]]] = field(default_factory=dict)


def find_ways(facts: Facts, question: Question, principals: frozenset[str] | None = None) -> Iterator[Way]:
    """Every way in which the question is answered with yes; `principals` None = of everybody."""
    said = said_by_roles(facts.grants.roles, facts.templates, question) if question.verb else None
    for binding in facts.bindings:
        if principals is not None and binding.principal not in principals:
            continue
        if binding.until is not None and binding.until <= facts.now:
            continue
        fully = False
        for answer in [ANY] if said is None else said.get(binding.role, ()):
            if answer.member and fully:
                continue
            for place in _places(facts, question, binding, answer):
                fully = fully or not answer.only_names
                yield Way(binding, place, answer.rights, answer.inherits, answer.only_names, answer.how)


def is_for_everybody(question: Question) -> bool:
    """Whether everybody who is signed in may do it without any binding."""
    return question.on_hub and question.resource == READABLE_BY_ALL and question.verb in READ_VERBS


def members_by_principal(grants: Grants) -> dict[str, list[str]]:
    """Principal id → names of the enabled users who act under it, sorted. Accounts and groups of providers as the hub last saw them."""
    found: dict[str, list[str]] = {}
    for name in sorted(grants.users):
        fact = grants.users[name]
        if fact.enabled:
            for principal in {fact.principal_id, *fact.group_ids, *grants.local_groups.get(fact.uid, ())}:
                found.setdefault(principal, []).append(name)
    return found


def change(
    facts: Facts, add: Iterable[BoundRole] = (), remove: Iterable[str] = (), roles: Iterable[RoleTemplate] = ()
) -> Facts:
    """The same moment with other bindings and roles: what a question is asked of a second time."""
    gone = frozenset(remove)
    templates = {**facts.templates, **{role.name: role for role in roles}}
    return replace(
        facts,
        grants=replace(facts.grants, roles=resolve_roles(templates.values())),
        bindings=(*(b for b in facts.bindings if b.name not in gone), *add),
        templates=templates,
    )


def diff_roles(before: Facts, after: Facts) -> dict[str, tuple[list[str], list[str]]]:
    """Role → rights gained and lost, for people; those that inherit a changed role, too."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for name in sorted(before.grants.roles.keys() | after.grants.roles.keys()):
        old, new = before.grants.roles.get(name), after.grants.roles.get(name)
        gained, lost = rights_beyond(new, old), rights_beyond(old, new)
        if gained or lost:
            found[name] = (gained, lost)
    return found


# ── where bindings count ─────────────────────────────────────────────────────────────────────────────────────────────────


def _places(facts: Facts, question: Question, binding: BoundRole, said: Said) -> Iterator[str]:
    """Where this binding's role counts and the question is about, as `hub`, `every cluster`, `cluster c`, `project p`."""
    grants, held = facts.grants, binding.held
    role = grants.roles.get(binding.role)
    if role is None:
        return
    if question.on_hub:
        yield from _places_on_hub(facts, question, binding, role, said)
    elif not question.cluster:
        for _, scope in escalation.list_roles(grants, held):
            if not question.project or scope.project == question.project:
                yield describe_scope(role, scope)
    elif role.scope == "cluster":
        if any(True for _ in grants.roles_in_cluster(held, question.cluster)):
            yield describe_scope(role, binding.scope)
    elif role.scope == "project":
        for project in held.projects:
            here = _holds(facts, project, question.cluster, question.namespace)
            if here and any(True for _ in grants.roles_in_project(held, project)):
                yield f"project {project}"


def _places_on_hub(
    facts: Facts, question: Question, binding: BoundRole, role: EffectiveRole, said: Said
) -> Iterator[str]:
    grants, held = facts.grants, binding.held
    cluster = question.cluster or (question.name if question.resource == "clusters" else "")
    project = question.project or (question.name if question.resource == "projects" else "")
    if role.scope == "global" and not said.member and any(True for _ in grants.roles_everywhere(held, "global")):
        yield "hub"
    elif role.scope == "cluster" and cluster:
        if any(True for _ in grants.roles_in_cluster(held, cluster)):
            yield describe_scope(role, binding.scope)
    elif role.scope == "project":
        # Whoever has a role in a project sees the clusters of its namespaces.
        names = [p for p in held.projects if _holds(facts, p, cluster, "")] if said.member else [project]
        for name in names:
            if name in held.projects and any(True for _ in grants.roles_in_project(held, name)):
                yield f"project {name}"


def _holds(facts: Facts, project: str, cluster: str, namespace: str) -> bool:
    """Whether the project has this namespace, or with none named any, in the cluster, which lives."""
    fact = facts.grants.projects.get(project)
    if fact is None or cluster not in fact.clusters or cluster not in facts.grants.clusters:
        return False
    return not namespace or (cluster, namespace) in facts.namespaces.get(project, ())


def describe_scope(role: EffectiveRole, scope: BindingScope) -> str:
    """Where a role counts that is bound so, for people."""
    if scope.all:
        return "hub" if role.scope == "global" else "every cluster"
    if scope.project:
        return f"project {scope.project}"
    if scope.cluster_selector is not None:
        return f"clusters with {describe_selector(scope.cluster_selector.requirements)}"
    return f"cluster {scope.cluster}"
