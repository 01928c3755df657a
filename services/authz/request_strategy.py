"""Writing AccessRequests: who asks is who calls, and the last approval gives the role in the same write.

Approving is giving: the binding passes the same checks as if the approver had made it (`binding_strategy`), in the moment of the approval.
"""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

from libs.common import errors
from libs.common.access.bindings import BindingIndex
from libs.common.access.lasting import grants_until
from libs.common.access.live import HasGrants
from libs.common.access.principal import Principal
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding, RoleTemplateBindingSpec
from libs.common.resources.identity import User
from libs.common.resources.meta import GROUP, ObjectMeta
from libs.common.resources.registry import BY_MODEL
from libs.common.resources.requests import AccessPolicy, AccessRequest, AccessRequestStatus
from libs.common.store.base import Put, Store
from libs.common.store.objects import Objects, encode_last, encode_unique, read
from services.authz import request_rules as rules
from services.authz.binding_strategy import BindingStrategy
from services.authz.policy_of_requests import uid_of
from services.authz.rules import check_scope
from services.authz.strategies import check_not_status, tell

REQUEST_NOTE = f"{GROUP}/access-request"
"""Annotation of a binding that an approved request made: the request's name, which is too long for a label."""


class AccessRequestStrategy(Strategy[AccessRequest]):
    """Everybody may ask; a decision is a write of `spec.decisions`; granted, the request and its binding are one batch."""

    model = AccessRequest

    def __init__(
        self, store: Store, policies: Objects[AccessPolicy], requests: Objects[AccessRequest], templates: Objects[RoleTemplate],
        bindings: BindingIndex, users: Objects[User], giving: BindingStrategy, grants: HasGrants,
    ) -> None:  # fmt: skip
        self._store = store
        self._policies, self._requests = policies, requests
        self._templates, self._bindings, self._users = templates, bindings, users
        self._giving = giving
        self._grants = grants

    async def prepare(self, ctx: WriteContext, old: AccessRequest | None, new: AccessRequest) -> AccessRequest:
        """Who asks or decides is who calls, whatever the body says."""
        if old is None:
            return self._prepare_new(ctx, new)
        rules.keep_filled(old.spec, new.spec)
        if rules.find_changes(old.spec, new.spec) or len(new.spec.decisions) == len(old.spec.decisions):
            return new
        decision = new.spec.decisions[-1]
        decision.by, decision.by_uid, decision.at = (
            ctx.principal.user,
            ctx.principal.user_uid,
            ctx.now.replace(microsecond=0),
        )
        if old.status.phase == "Pending" or old.status.unreviewed:
            new.status = self._decided(ctx, old, new)
        return new

    def _prepare_new(self, ctx: WriteContext, new: AccessRequest) -> AccessRequest:
        spec, caller = new.spec, ctx.principal
        spec.user, spec.user_uid, spec.principal = caller.user, caller.user_uid, caller.principal_id
        spec.decisions = []
        if rules.count_scopes(spec.scope) != 1:
            why = "exactly one of global, cluster and project must be given"
            raise validate.invalid_field(AccessRequest, new.name, "spec.scope", spec.scope.to_document(), why)
        policy = self._find_policy(ctx, new)
        spec.policy, spec.policy_uid = policy.name, policy.uid
        new.status = AccessRequestStatus(approvers=list(policy.spec.approvers), missing=policy.spec.approvals)
        if spec.break_glass:
            new.status.phase, new.status.missing, new.status.unreviewed = "Granted", 0, True
            new.status.binding, new.status.until = f"access-{new.uid}", rules.end_of(new, ctx.now)
        return new

    def _find_policy(self, ctx: WriteContext, new: AccessRequest) -> AccessPolicy:
        """Raises Denied in the same words for what may not be asked for and for what is not there."""
        spec = new.spec
        uid = uid_of(self._grants, spec.scope)
        if spec.scope.all or uid:
            spec.scope.cluster_uid, spec.scope.project_uid = (
                (uid if spec.scope.cluster else None),
                (uid if spec.scope.project else None),
            )
            found = sorted(
                (
                    p
                    for p in self._policies.all()
                    if not p.deleting and rules.fits(p.spec, spec, ctx.principal.principal_ids)
                ),
                key=lambda p: p.name,
            )
            if spec.policy:
                found = [p for p in found if p.name == spec.policy]
            if len(found) > 1:
                why = f"several policies allow it: name one of {tell([p.name for p in found])}"
                raise validate.required_field(AccessRequest, new.name, "spec.policy", why)
            if found:
                return found[0]
        named = f'policy "{spec.policy}" lets you' if spec.policy else "no access policy lets you"
        what = f'ask for role "{spec.role}" {rules.describe_scope(spec.scope)} for {spec.duration_seconds} s'
        raise errors.Denied(f"{named} {'not ' if spec.policy else ''}{what}", kind="AccessRequest", name=new.name)

    def _decided(self, ctx: WriteContext, old: AccessRequest, new: AccessRequest) -> AccessRequestStatus:
        """The status after the decision; whether the caller may make it is `admit`'s business."""
        status, policy = old.status.model_copy(deep=True), self._policy_of(old)
        if old.status.unreviewed:
            status.unreviewed = False
            if status.phase == "Granted" and new.spec.decisions[-1].verdict == "deny":
                status.phase = "Revoked"
        elif new.spec.decisions[-1].verdict == "deny":
            status.phase, status.missing = "Denied", 0
        elif policy is not None:
            status.missing = rules.count_missing(policy.spec, new.spec.decisions)
            if not status.missing:
                status.phase, status.binding = "Granted", f"access-{new.uid}"
                status.until = rules.end_of(new, ctx.now)
        return status

    async def admit(self, ctx: WriteContext, old: AccessRequest | None, new: AccessRequest) -> None:
        """Raises Invalid, Denied; Conflict for a request that is decided, or that asked for something which is no longer there."""
        check_not_status(ctx, new.name, "access request")
        if old is None:
            self._check_new(ctx, new)
            return
        causes = rules.find_changes(old.spec, new.spec)
        if causes:
            raise validate.invalid(AccessRequest, new.name, causes)
        if len(new.spec.decisions) > len(old.spec.decisions):
            await self._check_decision(ctx, old, new)

    def _check_new(self, ctx: WriteContext, new: AccessRequest) -> None:
        role = self._templates.get(new.spec.role)
        if role is None or role.deleting:
            cause = errors.Cause("spec.role", f"Not found: {validate.shown(new.spec.role)}", "FieldValueNotFound")
            raise validate.invalid(AccessRequest, new.name, [cause])
        if role.spec.locked:
            raise validate.forbidden_field(AccessRequest, new.name, "spec.role", f'role "{role.name}" is locked')
        causes = check_scope(_binding(new, ctx.now), role)
        if causes:
            raise validate.invalid(AccessRequest, new.name, causes)
        own = [r for r in self._requests.all() if r.spec.user_uid == ctx.principal.user_uid]
        pending = sum(r.status.phase == "Pending" or r.status.unreviewed for r in own)
        if pending >= rules.MAX_PENDING or len(own) >= rules.MAX_KEPT:
            raise errors.Denied(
                f"you asked for {pending} things that nobody decided on, and {len(own)} in all: at most {rules.MAX_PENDING} and {rules.MAX_KEPT}. "
                'Take back what you no longer need with "herdsman access withdraw"',
                kind="AccessRequest", name=new.name,
            )  # fmt: skip

    async def _check_decision(self, ctx: WriteContext, old: AccessRequest, new: AccessRequest) -> None:
        decision = new.spec.decisions[-1]
        if old.status.unreviewed:
            self._check_decider(ctx, old, decision.verdict, old.status.approvers)
            return
        if old.status.phase != "Pending" or rules.is_lapsed(old, ctx.now) or old.deleting:
            phase = "Lapsed" if old.status.phase == "Pending" else old.status.phase
            raise errors.Conflict(
                f'request "{old.name}" is {phase}: there is nothing to decide', kind="AccessRequest", name=old.name
            )
        policy = self._policy_of(old)
        if policy is None:
            raise errors.Conflict(
                f'policy "{old.spec.policy}" is gone: the request has to be made again',
                kind="AccessRequest",
                name=old.name,
            )
        self._check_decider(ctx, old, decision.verdict, policy.spec.approvers)
        if decision.verdict == "deny":
            return
        self._check_still_asked(ctx, policy, old)
        # As if the approver wrote the binding: the role, its scope, uids, locks, and whether the approver holds all that it gives, for so long.
        binding = _binding(new, rules.end_of(new, ctx.now))
        await self._giving.admit(ctx, None, await self._giving.prepare(ctx, None, binding))
        if new.status.phase == "Granted":
            self._check_earlier_approvers(ctx, policy, new, binding)

    def _check_decider(self, ctx: WriteContext, request: AccessRequest, verdict: str, approvers: list[str]) -> None:
        user = self._users.get(ctx.principal.user)
        why = rules.why_not_decide(approvers, request, ctx.principal, is_service=user is None or user.spec.service)
        if why:
            raise errors.Denied(
                f'cannot {verdict} request "{request.name}": {why}', kind="AccessRequest", name=request.name
            )

    def _check_still_asked(self, ctx: WriteContext, policy: AccessPolicy, request: AccessRequest) -> None:
        spec = request.spec
        requester = rules.ids_of(self._grants.current, spec.user, spec.user_uid)
        if not requester or requester[0] != spec.principal:
            raise errors.Conflict(
                f'user "{spec.user}" who asked is disabled or gone', kind="AccessRequest", name=request.name
            )
        if uid_of(self._grants, spec.scope) != (spec.scope.cluster_uid or spec.scope.project_uid or ""):
            what = f'what "{spec.user}" asked for {rules.describe_scope(spec.scope)} is gone; what has its name now is another one'
            raise errors.Conflict(what, kind="AccessRequest", name=request.name)
        if not rules.fits(policy.spec, spec, requester):
            raise errors.Conflict(
                f'policy "{policy.name}" no longer lets "{spec.user}" ask for this',
                kind="AccessRequest",
                name=request.name,
            )

    def _check_earlier_approvers(
        self, ctx: WriteContext, policy: AccessPolicy, request: AccessRequest, binding: RoleTemplateBinding
    ) -> None:
        """Each approval counts only if it could be given now: somebody may have lost the role, or the say, since."""
        grants, role = self._grants.current, self._templates.get(request.spec.role)
        assert role is not None, "the binding was admitted"
        for decision in request.spec.decisions[:-1]:
            ids = rules.ids_of(grants, decision.by, decision.by_uid)
            lost = not set(policy.spec.approvers) & set(ids)
            if not lost:
                approver = Principal(
                    user=decision.by, user_uid=decision.by_uid, principal_id=ids[0], group_ids=list(ids[1:])
                )
                lasting = grants_until(ctx.grants, approver, self._bindings, binding.spec.not_after)
                lost = bool(lasting.covers(approver, role, binding.spec.scope))
            if lost:
                raise errors.Conflict(
                    f'"{decision.by}", who approved before, could not do so now: the request has to be made again',
                    kind="AccessRequest", name=request.name,
                )  # fmt: skip

    async def extra_puts(self, ctx: WriteContext, old: AccessRequest | None, new: AccessRequest | None) -> list[Put]:
        """The binding, together with the status that says so. Its name is the request's uid: there is never a second one."""
        if new is None or (old is not None and old.status.phase == new.status.phase):
            return []
        if new.status.phase == "Revoked":
            return await self._removal(new.status.binding)
        if new.status.phase != "Granted":
            return []
        binding = await self._giving.prepare(ctx, None, _binding(new, new.status.until or ctx.now))
        binding.metadata = ObjectMeta(
            name=new.status.binding,
            uid=str(uuid4()),
            creation_timestamp=ctx.now,
            generation=1,
            annotations={REQUEST_NOTE: new.name},
        )
        return [Put(BY_MODEL[RoleTemplateBinding].key(binding.name), encode_unique(binding), 0)]

    async def _removal(self, name: str) -> list[Put]:
        """What takes the role away in the same write; nothing where somebody did so before."""
        try:
            binding = await read(self._store, RoleTemplateBinding, name)
        except errors.NotFound:
            return []
        revision = int(binding.metadata.resource_version or 0)
        return [Put(BY_MODEL[RoleTemplateBinding].key(name), encode_last(binding), revision, deleted=True)]

    async def admit_delete(self, ctx: WriteContext, old: AccessRequest) -> None:
        """Who asked takes back what nobody decided on; the rest stays as a record, and ends by itself."""
        by_right = ctx.grants.is_allowed(
            ctx.principal, "delete", "accessrequests", old.name, old.spec.scope.cluster or ""
        )
        if not by_right and (old.spec.user_uid != ctx.principal.user_uid or old.status.phase != "Pending"):
            raise errors.Denied(
                "only who asked can take a request back, as long as nobody decided on it",
                kind="AccessRequest",
                name=old.name,
            )
        if old.status.unreviewed:
            raise errors.Conflict(
                f'request "{old.name}" was an emergency: somebody else has to review it first',
                kind="AccessRequest",
                name=old.name,
            )
        if old.status.phase == "Granted":
            raise errors.Conflict(
                f'request "{old.name}" is granted until {old.status.until}: delete the binding "{old.status.binding}" first',
                kind="AccessRequest", name=old.name,
            )  # fmt: skip

    def _policy_of(self, request: AccessRequest) -> AccessPolicy | None:
        policy = self._policies.get(request.spec.policy or "")
        return policy if policy is not None and policy.uid == request.spec.policy_uid and not policy.deleting else None


def _binding(request: AccessRequest, until: datetime) -> RoleTemplateBinding:
    spec = request.spec
    return RoleTemplateBinding(
        metadata=ObjectMeta(name=f"access-{request.uid}"),
        spec=RoleTemplateBindingSpec(
            principal=spec.principal, user=None, role=spec.role, scope=rules.binding_scope(spec.scope), not_after=until, reason=spec.reason,
        ),
    )  # fmt: skip
