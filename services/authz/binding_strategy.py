"""Writing RoleTemplateBindings: who gets which role where, given only by those who hold it there."""

from __future__ import annotations

from libs.common import errors
from libs.common.access.lasting import grants_until
from libs.common.access.live import LiveGrants
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.store.objects import Objects
from services.authz import rules
from services.authz.strategies import check_not_status, tell

LOCAL_USER, LOCAL_GROUP = "local:user:", "local:group:"


class BindingStrategy(Strategy[RoleTemplateBinding]):
    model = RoleTemplateBinding

    def __init__(self, templates: Objects[RoleTemplate], grants: LiveGrants) -> None:
        self._templates = templates
        self._grants = grants

    async def prepare(
        self, ctx: WriteContext, old: RoleTemplateBinding | None, new: RoleTemplateBinding
    ) -> RoleTemplateBinding:
        """Names become immutable ids: the user's principal, the cluster's uid. An update may leave out what the hub filled in."""
        spec, grants = new.spec, self._grants.current
        if old is not None:
            spec.principal = spec.principal or old.spec.principal
            spec.user = spec.user or old.spec.user
            spec.scope.cluster_uid = spec.scope.cluster_uid or old.spec.scope.cluster_uid
            spec.scope.project_uid = spec.scope.project_uid or old.spec.scope.project_uid
            return new
        if spec.user:
            fact = grants.users.get(spec.user)
            if fact is None:
                raise _not_found(new, "spec.user", spec.user)
            if spec.principal not in ("", fact.principal_id):
                raise validate.invalid_field(
                    RoleTemplateBinding,
                    new.name,
                    "spec.principal",
                    spec.principal,
                    f'it is not user "{spec.user}": give one of the two',
                )
            spec.principal = fact.principal_id
        elif spec.principal.startswith(LOCAL_USER):
            spec.user = next((name for name, f in grants.users.items() if f.principal_id == spec.principal), None)
            if spec.user is None:
                raise _not_found(new, "spec.principal", spec.principal)
        elif spec.principal.startswith(LOCAL_GROUP) and spec.principal not in grants.local_group_ids:
            raise _not_found(new, "spec.principal", spec.principal)
        if spec.scope.cluster:
            uid = grants.clusters.get(spec.scope.cluster)
            if uid is None or spec.scope.cluster_uid not in (None, "", uid):
                raise _not_found(new, "spec.scope.cluster", spec.scope.cluster)
            spec.scope.cluster_uid = uid
        if spec.scope.project:
            project = grants.projects.get(spec.scope.project)
            if project is None or spec.scope.project_uid not in (None, "", project.uid):
                raise _not_found(new, "spec.scope.project", spec.scope.project)
            spec.scope.project_uid = project.uid
        return new

    async def admit(self, ctx: WriteContext, old: RoleTemplateBinding | None, new: RoleTemplateBinding) -> None:
        """Raises Invalid for what makes no sense, Denied for what the caller may not give."""
        check_not_status(ctx, new.name, "role template binding")
        causes = rules.check_text("spec.reason", new.spec.reason)
        if causes:
            raise validate.invalid(RoleTemplateBinding, new.name, causes)
        if old is None:
            self._check_new(ctx, new)
            self._check_may_give(ctx, new)
            return
        changed = rules.find_changed_fields(old, new)
        if changed:
            raise validate.invalid(
                RoleTemplateBinding, new.name,
                [errors.Cause(f, "Forbidden: only notAfter and reason can be changed: make another binding", "FieldValueForbidden") for f in changed],
            )  # fmt: skip
        if rules.is_prolonged(old, new):
            self._check_not_locked(new, "spec.notAfter")
            self._check_may_give(ctx, new)
        elif old.spec.not_after != new.spec.not_after:
            self._check_admin_stays(ctx, old)

    async def admit_delete(self, ctx: WriteContext, old: RoleTemplateBinding) -> None:
        self._check_admin_stays(ctx, old)

    def _check_new(self, ctx: WriteContext, new: RoleTemplateBinding) -> None:
        role = self._templates.get(new.spec.role)
        if role is None or role.deleting:
            raise _not_found(new, "spec.role", new.spec.role)
        self._check_not_locked(new, "spec.role")
        causes = rules.check_principal(new.spec.principal) + rules.check_scope(new, role)
        if causes:
            raise validate.invalid(RoleTemplateBinding, new.name, causes)
        if new.spec.not_after is not None and new.spec.not_after <= ctx.now:
            raise validate.invalid_field(
                RoleTemplateBinding, new.name, "spec.notAfter", new.spec.not_after, "it must be in the future"
            )

    def _check_not_locked(self, binding: RoleTemplateBinding, field: str) -> None:
        """A locked role is given to nobody any more, nor for longer to those who have it."""
        role = self._templates.get(binding.spec.role)
        if role is not None and role.spec.locked:
            raise validate.forbidden_field(RoleTemplateBinding, binding.name, field, f'role "{role.name}" is locked')

    def _check_may_give(self, ctx: WriteContext, binding: RoleTemplateBinding) -> None:
        role = self._templates.get(binding.spec.role)
        if role is None:
            raise _not_found(binding, "spec.role", binding.spec.role)
        lasting = grants_until(ctx.grants, ctx.principal, self._grants.bindings, binding.spec.not_after)
        lacking = lasting.covers(ctx.principal, role, binding.spec.scope)
        if lacking:
            raise errors.Denied(
                f'cannot give role "{role.name}": it has rights that you lack, or hold for a shorter time: {tell(lacking)}',
                kind="RoleTemplateBinding", name=binding.name,
            )  # fmt: skip

    def _check_admin_stays(self, ctx: WriteContext, old: RoleTemplateBinding) -> None:
        if not rules.may_be_admin(old):
            return
        enabled = {fact.principal_id for fact in self._grants.current.users.values() if fact.enabled}
        if rules.leaves_no_admin(self._grants.bindings.of_role(rules.ADMIN_ROLE), old, enabled, ctx.now):
            raise validate.forbidden_field(
                RoleTemplateBinding, old.name, "spec.role",
                f"nobody would be an admin any more: give the role {rules.ADMIN_ROLE} to another user first",
            )  # fmt: skip


def _not_found(binding: RoleTemplateBinding, field: str, value: str) -> errors.Invalid:
    cause = errors.Cause(field, f"Not found: {validate.shown(value)}", "FieldValueNotFound")
    return validate.invalid(RoleTemplateBinding, binding.name, [cause])
