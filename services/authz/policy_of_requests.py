"""Writing AccessPolicies: who may ask for which role, and whose approval counts."""

from __future__ import annotations

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.access.roles import resolve_roles
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.access import RoleTemplate
from libs.common.resources.requests import EVERYBODY, AccessPolicy, PolicyScope, RequestScope
from libs.common.store.objects import Objects
from services.authz import request_rules as rules
from services.authz.break_glass import BreakGlassGuard
from services.authz.rules import check_principal
from services.authz.strategies import check_not_status


class AccessPolicyStrategy(Strategy[AccessPolicy]):
    """A policy gives nothing by itself: it says who may ask, and whose approval counts if they hold the role. Only one for emergencies gives."""

    model = AccessPolicy

    def __init__(self, templates: Objects[RoleTemplate], guard: BreakGlassGuard, grants: HasGrants) -> None:
        self._templates = templates
        self._guard = guard
        self._grants = grants

    async def prepare(self, ctx: WriteContext, old: AccessPolicy | None, new: AccessPolicy) -> AccessPolicy:
        """Names become uids: of a scope that stood there before, those of then."""
        before = {(s.cluster, s.project): s for s in (old.spec.scopes if old is not None else ())}
        for index, scope in enumerate(new.spec.scopes):
            known = before.get((scope.cluster, scope.project))
            if known is not None and (scope.cluster_uid or scope.project_uid) in (
                None,
                known.cluster_uid or known.project_uid,
            ):
                scope.cluster_uid, scope.project_uid = known.cluster_uid, known.project_uid
            else:
                _fill_uids(self._grants, scope, new.name, f"spec.scopes[{index}]")
        return new

    async def admit(self, ctx: WriteContext, old: AccessPolicy | None, new: AccessPolicy) -> None:
        """Raises Invalid for what makes no sense."""
        check_not_status(ctx, new.name, "access policy")
        causes = rules.check_policy(new)
        for field in ("requesters", "approvers"):
            for index, principal in enumerate(getattr(new.spec, field)):
                if field == "requesters" and principal == EVERYBODY:
                    continue
                causes += [
                    errors.Cause(f"spec.{field}[{index}]", c.message, c.reason) for c in check_principal(principal)
                ]
        known = {t.name: t for t in self._templates.all()}
        if new.spec.break_glass:
            causes += [
                errors.Cause(f"spec.roles[{i}]", f"Not found: {validate.shown(role)}", "FieldValueNotFound")
                for i, role in enumerate(new.spec.roles)
                if role not in known
            ]
        if causes:
            raise validate.invalid(AccessPolicy, new.name, causes)
        if new.spec.break_glass:
            self._guard.check_policy(ctx, new, resolve_roles(known.values()))


def uid_of(grants: HasGrants, scope: RequestScope) -> str:
    """uid of the cluster or project of that name today; "" = none."""
    if scope.cluster:
        return grants.current.clusters.get(scope.cluster, "")
    project = grants.current.projects.get(scope.project or "")
    return project.uid if project is not None else ""


def _fill_uids(grants: HasGrants, scope: PolicyScope, name: str, path: str) -> None:
    """The uid of the cluster or project that is meant. Raises Invalid when there is none, or another than was given."""
    for field, given in (("cluster", scope.cluster), ("project", scope.project)):
        if given:
            uid = uid_of(grants, RequestScope(**{field: given}))
            if not uid or getattr(scope, f"{field}_uid") not in (None, "", uid):
                cause = errors.Cause(f"{path}.{field}", f"Not found: {validate.shown(given)}", "FieldValueNotFound")
                raise validate.invalid(AccessPolicy, name, [cause])
            setattr(scope, f"{field}_uid", uid)
