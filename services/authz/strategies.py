"""Writing RoleTemplates: rules that make sense, built-ins that stay, and no edit that gives more than the editor holds. AuditPolicies."""

from __future__ import annotations

from libs.common import errors
from libs.common.access.bindings import BindingIndex
from libs.common.access.lasting import grants_until
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.access import RoleTemplate
from libs.common.resources.audit import AuditPolicy
from libs.common.store.objects import Objects
from services.authz import rules
from services.authz.audit_rules import check_policy
from services.authz.builtins import built_in_names

MAX_TOLD = 5
"""Lacking rights that a message names; the rest is counted."""


class RoleTemplateStrategy(Strategy[RoleTemplate]):
    """The name is part of a group name and of ClusterRoles, so it is a label."""

    model = RoleTemplate
    name_is_label = True

    def __init__(self, templates: Objects[RoleTemplate], bindings: BindingIndex) -> None:
        self._templates = templates
        self._bindings = bindings

    async def admit(self, ctx: WriteContext, old: RoleTemplate | None, new: RoleTemplate) -> None:
        """Raises Invalid for what makes no sense, Denied for what would give more than the caller holds."""
        check_not_status(ctx, new.name, "role template")
        if (new.spec.built_in or (old is not None and old.spec.built_in)) and not _is_only_creator_default(old, new):
            raise validate.forbidden_field(
                RoleTemplate,
                new.name,
                "spec.builtIn",
                "built-in roles can't be made or changed, except creatorDefault: make one that inherits it",
            )
        if old is None and new.name in built_in_names():
            raise validate.invalid(
                RoleTemplate, new.name,
                [errors.Cause("metadata.name", f'Duplicate value: "{new.name}": a built-in role has this name', "FieldValueDuplicate")],
            )  # fmt: skip
        if old is not None and old.spec.scope != new.spec.scope:
            raise validate.forbidden_field(RoleTemplate, new.name, "spec.scope", "the scope can't be changed")
        by_name = {t.name: t for t in self._templates.all()}
        causes = rules.check_template(new, by_name)
        if causes:
            raise validate.invalid(RoleTemplate, new.name, causes)
        more = old is None or _rights(old) != _rights(new)
        if more or (new.spec.creator_default and old is not None and not old.spec.creator_default):
            lasting = grants_until(ctx.grants, ctx.principal, self._bindings, None)
            for role, scope in rules.find_affected(new, by_name, self._bindings if more else BindingIndex()):
                lacking = lasting.covers(ctx.principal, role, scope)
                if lacking:
                    raise errors.Denied(
                        f'cannot change role "{new.name}": it is bound, or given to makers, and would give rights that you lack, or hold for a time only: {tell(lacking)}',
                        kind="RoleTemplate", name=new.name,
                    )  # fmt: skip

    async def admit_delete(self, ctx: WriteContext, old: RoleTemplate) -> None:
        """A role that is bound or inherited stays: a role made again under its name must find no bindings."""
        if old.spec.built_in:
            raise validate.forbidden_field(RoleTemplate, old.name, "spec.builtIn", "built-in roles can't be deleted")
        bound = sorted(b.name for b in self._bindings.of_role(old.name))
        heirs = sorted(t.name for t in self._templates.all() if old.name in t.spec.inherits)
        for users, how in ((bound, "bound by role template bindings"), (heirs, "inherited by roles")):
            if users:
                raise errors.Conflict(
                    f'cannot delete role "{old.name}": it is {how}: {tell(users)}; delete those first',
                    kind="RoleTemplate", name=old.name,
                )  # fmt: skip


class AuditPolicyStrategy(Strategy[AuditPolicy]):
    """Who may write a policy holds the global right to it; a rule that makes no sense is refused, not guessed at."""

    model = AuditPolicy

    async def admit(self, ctx: WriteContext, old: AuditPolicy | None, new: AuditPolicy) -> None:
        """Raises Denied for a write of the status, Invalid; tells when less is written down than by default."""
        check_not_status(ctx, new.name, "audit policy")
        causes = check_policy(new)
        if causes:
            raise validate.invalid(AuditPolicy, new.name, causes)
        for index, rule in enumerate(new.spec.rules):
            if rule.level == "None":
                ctx.warnings.append(f"spec.rules[{index}]: calls that fit this rule leave no trace in the audit log")


def check_not_status(ctx: WriteContext, name: str, kind: str) -> None:
    if ctx.subresource:
        raise errors.Denied(f"the status of a {kind} is written by the hub alone", name=name)


def tell(texts: list[str]) -> str:
    more = f" and {len(texts) - MAX_TOLD} more" if len(texts) > MAX_TOLD else ""
    return "; ".join(texts[:MAX_TOLD]) + more


def _rights(template: RoleTemplate) -> tuple[object, ...]:
    return template.spec.rules, template.spec.hub_rules, template.spec.inherits


def _is_only_creator_default(old: RoleTemplate | None, new: RoleTemplate) -> bool:
    """Whether makers getting the role or not is all that changes."""
    return old is not None and new.spec == old.spec.model_copy(update={"creator_default": new.spec.creator_default})
