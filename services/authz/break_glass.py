"""Emergencies: a policy that gives roles at once is covered by whoever wrote it, and each use raises an alarm and is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from prometheus_client import Counter, Gauge

from libs.common import errors
from libs.common.access.bindings import BindingIndex
from libs.common.access.emergencies import scopes_given
from libs.common.access.lasting import grants_until
from libs.common.access.roles import EffectiveRole, resolve_roles
from libs.common.apiserver.strategy import WriteContext
from libs.common.observe import log, metrics
from libs.common.resources.access import RoleTemplate
from libs.common.resources.requests import AccessPolicy, AccessRequest
from libs.common.store.base import Store
from libs.common.store.objects import Objects, modify
from services.authz import request_rules as rules
from services.authz.strategies import RoleTemplateStrategy, tell

ALARM = "break_glass_used"
"""Name of the log event, for whoever watches logs."""


class BreakGlassGuard:
    """Nobody approves in an emergency, so whoever makes it possible has to hold all that it gives, for good: in the policy and in its roles."""

    def __init__(self, policies: Objects[AccessPolicy], bindings: BindingIndex) -> None:
        self._policies = policies
        self._bindings = bindings

    def check_policy(self, ctx: WriteContext, policy: AccessPolicy, roles: Mapping[str, EffectiveRole]) -> None:
        """Raises Denied for a policy whose roles the caller lacks somewhere, or holds for a time only."""
        lasting = grants_until(ctx.grants, ctx.principal, self._bindings, None)
        for name in policy.spec.roles:
            role = roles.get(name)
            for scope in scopes_given(policy.spec) if role is not None else ():
                lacking = lasting.covers(ctx.principal, role, scope) if role is not None else []
                if lacking:
                    raise errors.Denied(
                        f'policy "{policy.name}" would give role "{name}" in an emergency, which has rights that you lack, or hold for a time only: {tell(lacking)}',
                        kind="AccessPolicy", name=policy.name,
                    )  # fmt: skip

    def check_role(self, ctx: WriteContext, template: RoleTemplate, before: Mapping[str, RoleTemplate]) -> None:
        """Raises Denied for a changed role that would let such a policy give more than the caller holds."""
        old, new = resolve_roles(before.values()), resolve_roles([*before.values(), template])
        changed = {name: role for name, role in new.items() if _rights(old.get(name)) != _rights(role)}
        for policy in self._policies.all():
            if policy.spec.break_glass and not changed.keys().isdisjoint(policy.spec.roles):
                self.check_policy(ctx, policy, changed)


def _rights(role: EffectiveRole | None) -> tuple[object, ...]:
    return (role.scope, role.rules, role.hub_rules) if role is not None else ()


class GuardedRoleStrategy(RoleTemplateStrategy):
    """A role's edit is checked as everywhere, and for what it would give in an emergency."""

    def __init__(self, templates: Objects[RoleTemplate], bindings: BindingIndex, guard: BreakGlassGuard) -> None:
        super().__init__(templates, bindings)
        self._all_templates = templates
        self._guard = guard

    async def admit(self, ctx: WriteContext, old: RoleTemplate | None, new: RoleTemplate) -> None:
        await super().admit(ctx, old, new)
        self._guard.check_role(ctx, new, {t.name: t for t in self._all_templates.all()})


class Alarms:
    """Each emergency is told once at least: in the log, as an error, and in the figures. A crash between telling and noting tells twice."""

    def __init__(self, store: Store, requests: Objects[AccessRequest], now: Callable[[], datetime]) -> None:
        self._store = store
        self._requests = requests
        self._now = now
        registry = metrics.registry()
        self._used = Counter("herdsman_break_glass", "Emergencies in which a role was given at once", registry=registry)
        self._active = Gauge(
            "herdsman_break_glass_active", "Roles that are given in an emergency now", registry=registry
        )
        self._unreviewed = Gauge(
            "herdsman_break_glass_unreviewed", "Emergencies that nobody else has reviewed", registry=registry
        )

    async def tell(self, request: AccessRequest) -> None:
        """The alarm of this request, if it was not raised yet, and the figures of all."""
        self._count(self._requests.all())
        if request.status.alarmed is not None:
            return
        spec = request.spec
        log.get("authz").error(
            ALARM, request=request.name, user=spec.user, role=spec.role, scope=rules.describe_scope(spec.scope), policy=spec.policy,
            until=request.status.until and request.status.until.isoformat(), reason=spec.reason,
            advice=f'see "herdsman access list --unreviewed"; to end it now: "herdsman access deny {request.name}"',
        )  # fmt: skip
        self._used.inc()

        def note(stored: AccessRequest) -> bool:
            if stored.uid != request.uid or stored.status.alarmed is not None:
                return False
            stored.status.alarmed = self._now()
            return True

        try:
            await modify(self._store, AccessRequest, request.name, note, now=self._now)
        except errors.NotFound:
            return

    def _count(self, requests: Iterable[AccessRequest]) -> None:
        emergencies = [r for r in requests if r.spec.break_glass]
        self._active.set(sum(r.status.phase == "Granted" for r in emergencies))
        self._unreviewed.set(sum(r.status.unreviewed for r in emergencies))
