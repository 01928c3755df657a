"""AccessReview: who can do what where, and why; who reaches a Secret; what would change if. Computed from this process's own copies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from aiohttp import web

from libs.common import errors
from libs.common.access import explain, indirect
from libs.common.access.escalation import list_roles
from libs.common.access.explain import BoundRole, Facts, bound_role
from libs.common.access.roles import find_too_large
from libs.common.access.sayings import Question
from libs.common.apiserver import rights, validate
from libs.common.apiserver.review_kinds import (
    AccessPath,
    AccessReview,
    AccessReviewSpec,
    AccessReviewStatus,
    RoleChange,
)
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding, RoleTemplateBindingSpec
from libs.common.resources.identity import Group
from libs.common.resources.meta import GROUP, ObjectMeta, Resource
from libs.common.resources.projects import Project
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Entry
from services.gateway.access_paths import Sight, find_new, in_order
from services.gateway.answers import answer
from services.gateway.bodies import read_body
from services.gateway.call import Call
from services.gateway.state import State
from services.gateway.virtual import parse_kind

R = TypeVar("R", bound=Resource)
F = TypeVar("F")
MAX_WAITING = 8
"""Reviews that wait for their turn: one takes a processor for up to a second, and all other calls go on beside it."""
BY_HAND = "roles and bindings that were made by hand in a cluster are not in this answer"
AS_LAST_SEEN = (
    "who is in a provider's group is what the hub saw when they last signed in; others in it have the same rights"
)


class AccessReviews:
    def __init__(self, state: State) -> None:
        self._state = state
        self._bindings = _Read(state, RoleTemplateBinding, bound_role)
        self._templates = _Read(state, RoleTemplate, lambda role: role)
        self._projects = _Read(state, Project, _namespaces)
        self._groups = _Read(state, Group, lambda group: (group.status.principal_id, group.name))
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def create(self, call: Call) -> web.StreamResponse:
        """Reading, whatever its method: good for read-only tokens. Raises Invalid, NotFound, Unavailable when too many wait."""
        principal, grants = call.principal, self._state.grants.current
        rights.check_caller(principal, "get")
        if not grants.is_allowed(principal, "get", "users", principal.user):
            raise errors.Denied("only an enabled user can ask for a review")
        wanted, warnings, _ = parse_kind(call, AccessReview, await read_body(call.request))
        _check(wanted)
        if self._waiting >= MAX_WAITING:
            raise errors.Unavailable("many access reviews are under way: try again in some seconds", retry_after_s=2)
        self._waiting += 1
        try:
            async with self._turn:
                wanted.status = await self._review(call, wanted.spec)
        finally:
            self._waiting -= 1
        wanted.metadata.creation_timestamp = self._state.now()

        def render() -> web.Response:
            return answer(wanted.to_document(), 201, warnings=warnings, headers={"Cache-Control": "no-store"})

        # Of ten thousand people it takes long enough that other calls would wait for it.
        return await asyncio.to_thread(render)

    async def _review(self, call: Call, spec: AccessReviewSpec) -> AccessReviewStatus:
        """The copies as they are at this moment, and all the rest beside the loop."""
        grants, now = self._state.grants.current, self._state.now()
        entries = [kind.snapshot() for kind in (self._bindings, self._templates, self._projects, self._groups)]

        def work() -> AccessReviewStatus:
            bindings, templates = tuple(self._bindings.read(entries[0])), self._templates.read(entries[1])
            projects, groups = dict(self._projects.read(entries[2])), dict(self._groups.read(entries[3]))
            facts = Facts(grants, bindings, {t.name: t for t in templates}, now, projects)
            return _answer(facts, Sight(grants, call.principal, groups), spec)

        return await asyncio.to_thread(work)


def _answer(facts: Facts, sight: Sight, spec: AccessReviewSpec) -> AccessReviewStatus:
    question = Question(
        spec.verb,
        spec.api_group,
        spec.resource,
        spec.name,
        spec.cluster or "",
        spec.namespace or "",
        spec.project or "",
    )
    if spec.cluster:
        seen = facts.grants.visible_clusters(sight.caller)
        if spec.cluster not in (facts.grants.clusters if seen is None else seen):
            raise _absent("clusters", spec.cluster)
    principals = _principals(sight, spec)

    def paths(moment: Facts) -> list[AccessPath]:
        return in_order(sight.paths(explain.find_ways(moment, question, principals), spec.user))

    status = AccessReviewStatus(
        everybody=explain.is_for_everybody(question), incomplete=sight.hidden and spec.user != sight.caller.user
    )
    before = paths(facts)
    if spec.what_if is None:
        status.paths = _cut(before, spec.limit, status)
    else:
        changed = _change(facts, sight, spec)
        after = paths(changed)
        status.gained = _cut(find_new(before, after, question), spec.limit, status)
        status.lost = _cut(find_new(after, before, question), spec.limit, status)
        differ = explain.diff_roles(facts, changed)
        status.roles = [RoleChange(role=r, gained=gained, lost=lost) for r, (gained, lost) in differ.items()]
    if not question.on_hub:
        status.notes.append(BY_HAND)
    if any(
        path.group and not path.principal.startswith("local:") for path in (*status.paths, *status.gained, *status.lost)
    ):
        status.notes.append(AS_LAST_SEEN)
    return status


def _principals(sight: Sight, spec: AccessReviewSpec) -> frozenset[str] | None:
    """Whose bindings are looked at; None = everybody's. Raises NotFound to those who may know that there is no such user."""
    if not spec.user:
        return frozenset({spec.principal}) if spec.principal else None
    if spec.user == sight.caller.user:
        return sight.own
    fact = sight.grants.users.get(spec.user)
    if fact is None:
        if sight.sees_user(spec.user):
            raise _absent("users", spec.user)
        return frozenset()
    if not sight.sees_user(spec.user):
        return frozenset({fact.principal_id})
    groups = (g for g in sight.grants.local_groups.get(fact.uid, ()) if sight.sees_members(g))
    return frozenset({fact.principal_id, *fact.group_ids, *groups})


def _change(facts: Facts, sight: Sight, spec: AccessReviewSpec) -> Facts:
    """Raises NotFound for a binding, user, cluster or project that the caller can't see, whether it is there or not."""
    assert spec.what_if is not None
    wanted, known = spec.what_if, {b.name: b for b in facts.bindings}
    for name in wanted.remove:
        binding = known.get(name)
        if binding is None or not (binding.principal in sight.own or sight.sees_binding(binding)):
            raise _absent("roletemplatebindings", name)
    meta = ObjectMeta(uid="what-if", creation_timestamp=facts.now)
    roles = [RoleTemplate(metadata=meta.model_copy(update={"name": r.name}), spec=r.spec) for r in wanted.roles]
    too_large = find_too_large((r.name for r in roles), {**facts.templates, **{r.name: r for r in roles}})
    if too_large:
        cause = errors.Cause("spec.whatIf.roles", f"Too many: {too_large}", "FieldValueTooMany")
        raise validate.invalid(AccessReview, "", [cause])
    added = [_binding(facts, sight, index, one) for index, one in enumerate(wanted.add)]
    changed = explain.change(facts, added, wanted.remove, roles)
    for index, binding in enumerate(added):
        if not any(True for _ in list_roles(changed.grants, binding.held)):
            raise validate.invalid_field(
                AccessReview, "", f"spec.whatIf.add[{index}]", binding.role, "there is no such role, or it does not count in this scope"
            )  # fmt: skip
    return changed


def _binding(facts: Facts, sight: Sight, index: int, wanted: RoleTemplateBindingSpec) -> BoundRole:
    grants, spec = facts.grants, wanted.model_copy(deep=True)
    if spec.user:
        fact = grants.users.get(spec.user)
        if fact is None or not (spec.user == sight.caller.user or sight.sees_user(spec.user)):
            raise _absent("users", spec.user)
        spec.principal = fact.principal_id
    if not spec.principal:
        raise validate.required_field(
            AccessReview, "", f"spec.whatIf.add[{index}].principal", "name a user or a principal"
        )
    if spec.scope.cluster:
        seen = grants.visible_clusters(sight.caller)
        if spec.scope.cluster not in (grants.clusters if seen is None else seen):
            raise _absent("clusters", spec.scope.cluster)
        spec.scope.cluster_uid = grants.clusters[spec.scope.cluster]
    project = spec.scope.project
    if project and not (project in grants.projects and grants.is_allowed(sight.caller, "get", "projects", project)):
        raise _absent("projects", project)
    if project:
        spec.scope.project_uid = grants.projects[project].uid
    meta = ObjectMeta(name=f"what-if-{index}", creation_timestamp=facts.now)
    return bound_role(RoleTemplateBinding(metadata=meta, spec=spec))


def _check(review: AccessReview) -> None:
    """Raises Invalid for a question that has no answer."""
    spec, causes = review.spec, []
    if spec.user and spec.principal:
        causes.append(errors.Cause("spec.principal", "Forbidden: it counts without user", "FieldValueForbidden"))
    if bool(spec.verb) != bool(spec.resource):
        field = "resource" if spec.verb else "verb"
        causes.append(
            errors.Cause(f"spec.{field}", "Required value: a right is a verb on a resource", "FieldValueRequired")
        )
    if spec.name and not spec.resource:
        causes.append(errors.Cause("spec.name", "Forbidden: it counts together with a resource", "FieldValueForbidden"))
    if spec.namespace and (not spec.cluster or spec.api_group == GROUP):
        causes.append(
            errors.Cause(
                "spec.namespace", "Forbidden: it counts together with a cluster, inside it", "FieldValueForbidden"
            )
        )
    if spec.project and spec.verb and spec.api_group != GROUP:
        why = "Forbidden: it counts for the hub's own objects; inside a cluster name the namespace"
        causes.append(errors.Cause("spec.project", why, "FieldValueForbidden"))
    if spec.verb == indirect.REACH and (spec.api_group, spec.resource) != ("", "secrets"):
        causes.append(errors.Cause("spec.verb", 'Invalid value: "reach": it is asked of secrets alone'))
    if causes:
        raise validate.invalid(AccessReview, review.name, causes)


def _cut(paths: list[AccessPath], limit: int, status: AccessReviewStatus) -> list[AccessPath]:
    status.omitted += max(0, len(paths) - limit)
    return paths[:limit]


def _namespaces(project: Project) -> tuple[str, frozenset[tuple[str, str]]]:
    return project.name, frozenset((n.cluster, n.namespace) for n in project.spec.namespaces)


def _absent(plural: str, name: str) -> errors.NotFound:
    return errors.NotFound(f'{plural}.{GROUP} "{name}" not found', kind=plural, name=name)


class _Read(Generic[R, F]):
    """What a review needs of each object of a kind, remembered until the object changes. What can't be read gives nothing, as in the grants."""

    def __init__(self, state: State, model: type[R], fact: Callable[[R], F]) -> None:
        self._state, self._model, self._fact = state, model, fact
        self._known: dict[str, tuple[Entry, F]] = {}

    def snapshot(self) -> Sequence[Entry]:
        """On the loop: the entries of this moment."""
        rtype = BY_MODEL[self._model]
        return list(self._state.caches[rtype.plural].informer.entries.values())

    def read(self, entries: Sequence[Entry]) -> list[F]:
        """Beside the loop, one at a time."""
        known: dict[str, tuple[Entry, F]] = {}
        for entry in entries:
            before = self._known.get(entry.key)
            if before is not None and before[0] is entry:
                known[entry.key] = before
                continue
            try:
                known[entry.key] = entry, self._fact(codec.decode(self._model, entry.value, entry.revision))
            except (errors.HerdsmanError, ValueError, KeyError) as exc:
                log.get("gateway").error("review_source_unreadable", key=entry.key, error=str(exc))
        self._known = known
        return [fact for _, fact in known.values()]
