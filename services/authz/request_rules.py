"""The pure rules of asking for access: which policy fits, what may change in a request, and who may decide on it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from libs.common.access.grants import Grants
from libs.common.access.principal import Principal
from libs.common.errors import Cause
from libs.common.resources.access import BindingScope
from libs.common.resources.requests import (
    EVERYBODY,
    AccessPolicy,
    AccessPolicySpec,
    AccessRequest,
    AccessRequestSpec,
    Decision,
    PolicyScope,
    RequestScope,
)

LAPSE_S = 7 * 86400.0
"""A request that nobody decided on for a week is closed: what it was needed for is over."""
MAX_PENDING = 10
MAX_KEPT = 200
"""Requests of one user at a time, and those that are still shown: who asks too often floods whoever decides."""
_FILLED = ("policy", "policy_uid", "user", "user_uid", "principal")


def fits(policy: AccessPolicySpec, request: AccessRequestSpec, requester: Iterable[str]) -> bool:
    """Whether the policy lets somebody with these principal ids ask for this."""
    return (
        request.role in policy.roles
        and request.break_glass == policy.break_glass
        and request.duration_seconds <= policy.max_seconds
        and not {EVERYBODY, *requester}.isdisjoint(policy.requesters)
        and any(is_in_scope(scope, request.scope) for scope in policy.scopes)
    )


def is_in_scope(wide: PolicyScope, asked: RequestScope) -> bool:
    """By uid where there is one: what is called the same today may be another."""
    if asked.cluster:
        return wide.any_cluster or (wide.cluster, wide.cluster_uid) == (asked.cluster, asked.cluster_uid)
    if asked.project:
        return wide.any_project or (wide.project, wide.project_uid) == (asked.project, asked.project_uid)
    return asked.all and wide.all


def count_scopes(scope: RequestScope | PolicyScope) -> int:
    """How many of the fields that exclude each other are given."""
    given: list[object] = [scope.all, scope.cluster, scope.project]
    if isinstance(scope, PolicyScope):
        given += [scope.any_cluster, scope.any_project]
    return sum(map(bool, given))


def binding_scope(scope: RequestScope) -> BindingScope:
    return BindingScope.model_validate(scope.model_dump())


def describe_scope(scope: RequestScope) -> str:
    if scope.all:
        return "everywhere"
    return f"in cluster {scope.cluster}" if scope.cluster else f"in project {scope.project}"


def check_policy(policy: AccessPolicy) -> list[Cause]:
    """One cause for each scope that says nothing, or several things; an emergency is for people who are named."""
    causes = [
        Cause(f"spec.scopes[{index}]", "Invalid value: exactly one of global, cluster, project, anyCluster and anyProject must be given")
        for index, scope in enumerate(policy.spec.scopes)
        if count_scopes(scope) != 1
    ]  # fmt: skip
    if policy.spec.break_glass and EVERYBODY in policy.spec.requesters:
        causes.append(
            Cause("spec.requesters", "Forbidden: breakGlass is for principals who are named", "FieldValueForbidden")
        )
    return causes


def keep_filled(old: AccessRequestSpec, new: AccessRequestSpec) -> None:
    """An update may leave out what the hub filled in."""
    for name in _FILLED:
        setattr(new, name, getattr(new, name) or getattr(old, name))
    for name in ("cluster_uid", "project_uid"):
        setattr(new.scope, name, getattr(new.scope, name) or getattr(old.scope, name))


def find_changes(old: AccessRequestSpec, new: AccessRequestSpec) -> list[Cause]:
    """What changed although only one decision may be added."""
    causes = [
        Cause(f"spec.{name}", "Forbidden: a request can't be changed: delete it and ask again", "FieldValueForbidden")
        for name in AccessRequestSpec.model_fields
        if name != "decisions" and getattr(old, name) != getattr(new, name)
    ]
    if new.decisions[: len(old.decisions)] != old.decisions or len(new.decisions) > len(old.decisions) + 1:
        why = "Forbidden: one decision can be added at the end, and none be changed or taken away"
        causes.append(Cause("spec.decisions", why, "FieldValueForbidden"))
    return causes


def why_not_decide(approvers: Iterable[str], request: AccessRequest, caller: Principal, *, is_service: bool) -> str:
    """Why this caller decides nothing here, for them; "" = may. Four eyes: never who asked, by whichever account or token."""
    if caller.user_uid == request.spec.user_uid or request.spec.principal in caller.principal_ids:
        return "you asked for it: somebody else has to decide"
    if is_service:
        return "a service user decides nothing: whoever looks after it could be the one who asked"
    if any(decision.by_uid == caller.user_uid for decision in request.spec.decisions):
        return "you decided already: the others have to do so, too"
    if not set(approvers) & set(caller.principal_ids):
        return f'policy "{request.spec.policy}" does not name you as an approver'
    return ""


def ids_of(grants: Grants, user: str, uid: str) -> tuple[str, ...]:
    """The principal ids of an enabled user, as the hub last saw them; () = gone, disabled, or another one of that name."""
    fact = grants.users.get(user)
    if fact is None or fact.uid != uid or not fact.enabled:
        return ()
    return (fact.principal_id, *fact.group_ids, *grants.local_groups.get(uid, ()))


def count_missing(policy: AccessPolicySpec, decisions: Iterable[Decision]) -> int:
    """How many approvals are missing; a person counts once."""
    return max(0, policy.approvals - len({d.by_uid for d in decisions if d.verdict == "approve"}))


def is_lapsed(request: AccessRequest, now: datetime) -> bool:
    created = request.metadata.creation_timestamp
    return created is not None and now >= created + timedelta(seconds=LAPSE_S)


def end_of(request: AccessRequest, now: datetime) -> datetime:
    """When a role ends that is given now: stored times have whole seconds, and nobody gets more than was asked for."""
    return (now + timedelta(seconds=request.spec.duration_seconds)).replace(microsecond=0)
