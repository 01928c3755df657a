"""Writing Projects: namespaces that exist once, put in and taken out by those who may; policies set by those who may."""

from __future__ import annotations

from collections.abc import Mapping

from libs.common import errors
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project
from libs.common.store.base import Put
from libs.common.store.objects import Objects
from services.project import policies, rights, rules, shares, system
from services.project.claims import Claims


class ProjectStrategy(Strategy[Project]):
    """The name is part of a group name, so it is a label."""

    model = Project
    name_is_label = True
    keeps_creator = True

    def __init__(self, claims: Claims, clusters: Objects[Cluster], bindings: Objects[RoleTemplateBinding]) -> None:
        self._claims = claims
        self._clusters = clusters
        self._bindings = bindings

    async def prepare(self, ctx: WriteContext, old: Project | None, new: Project) -> Project:
        ctx.warnings += rules.settle(old, new, ctx.grants.clusters)
        shares.fill_shares(old, new)
        return new

    async def admit(self, ctx: WriteContext, old: Project | None, new: Project) -> None:
        """Raises Denied for what the caller may not change, Invalid for what makes no sense."""
        if ctx.subresource:
            raise errors.Denied("the status of a project is written by the hub alone", kind="Project", name=new.name)
        self.check_rights(ctx, old, new)
        added = rules.find_added(old, new)
        holders = await self._claims.find_holders(added, new.name)
        self.check(ctx, old, new, {key: _told(ctx, name) for key, name in holders.items()})

    async def extra_puts(self, ctx: WriteContext, old: Project | None, new: Project | None) -> list[Put]:
        return await self._claims.plan(old, new)

    def check_rights(self, ctx: WriteContext, old: Project | None, new: Project) -> None:
        """Raises Denied."""
        rights.check_changes(ctx.grants, ctx.principal, self._bindings.all(), old, new, ctx.now)

    def check(self, ctx: WriteContext, old: Project | None, new: Project, taken: Mapping[rules.Key, str]) -> None:
        """Raises Invalid, whoever asks; warns of what will surprise."""
        added = {rules.key_of(n) for n in rules.find_added(old, new)}
        changes = len(added) + (len(rules.find_removed(old, new)) if old is not None else 0)
        causes = rules.check_namespaces(
            new, taken, ctx.grants.clusters, added, lambda c: system.patterns_of(self._clusters.get(c))
        )
        if changes > rules.MAX_CHANGES:
            why = f"Too many: {changes}: at most {rules.MAX_CHANGES} namespaces come and go with one write"
            causes.append(errors.Cause("spec.namespaces", why, "FieldValueTooMany"))
        below, told = shares.check_use(old, new)
        causes += policies.check_policies(new) or shares.check_shares(new) or below
        ctx.warnings += told
        if causes:
            raise validate.invalid(Project, new.name, causes)
        if old is None or (old.spec.quota, old.spec.container_limits) != (new.spec.quota, new.spec.container_limits):
            ctx.warnings += [
                f"spec.quota[{name}]: containers that say nothing of it are refused: give spec.containerLimits a default"
                for name in policies.find_unlimited(new.spec)
            ]


def _told(ctx: WriteContext, project: str) -> str:
    """What the caller may be told of the project that has a namespace: its name, if they may see it."""
    if ctx.grants.is_allowed(ctx.principal, "get", "projects", project):
        return f'project "{project}"'
    return "another project"
