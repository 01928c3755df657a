"""Writing ProjectTemplates: whoever writes one gives, to everybody who may use it, what a project made from it gives.

So they must be able to make such a project themselves, with its policies and its namespaces, and hold in each of its clusters every right
that a project can give, for good.
"""

from __future__ import annotations

from libs.common import errors
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.projects import Project, ProjectTemplate
from libs.common.store.objects import Objects
from services.project import policies, rights
from services.project.templates import render_spec

NAME = "the-name"
"""Stands for the name of the projects."""


class ProjectTemplateStrategy(Strategy[ProjectTemplate]):
    """The name becomes a label's value, so it is a label."""

    model = ProjectTemplate
    name_is_label = True

    def __init__(self, bindings: Objects[RoleTemplateBinding]) -> None:
        self._bindings = bindings

    async def admit(self, ctx: WriteContext, old: ProjectTemplate | None, new: ProjectTemplate) -> None:
        """Raises Denied for what the caller may not give, Invalid for what makes no sense."""
        if old is not None and old.spec == new.spec:
            return
        causes = [
            errors.Cause(f"spec.clusters[{index}]", f'Not found: "{name}"', "FieldValueNotFound")
            for index, name in enumerate(new.spec.clusters)
            if name not in ctx.grants.clusters and (old is None or name not in old.spec.clusters)
        ]
        causes += [
            errors.Cause(f"spec.clusters[{index}]", f'Duplicate value: "{name}"', "FieldValueDuplicate")
            for index, name in enumerate(new.spec.clusters)
            if name in new.spec.clusters[:index]
        ]
        # Any name will do: what is asked is whether there may be such a project.
        project = Project(metadata=new.metadata.model_copy(update={"name": NAME}), spec=render_spec(new, NAME))
        causes += policies.check_policies(project)
        if causes:
            raise validate.invalid(ProjectTemplate, new.name, causes)
        # On the whole hub: rights in some project of that name are nothing to others.
        grants, principal = ctx.grants, ctx.principal
        if not grants.is_allowed(principal, "create", "projects"):
            raise _denied(new, "the right to create projects is missing")
        if not rights.may_set_policies(grants, principal, ""):
            raise _denied(new, "the right to update projects/policies is missing")
        beyond = sorted(c for c in new.spec.clusters if not grants.is_allowed(principal, "update", "clusters", c, c))
        if beyond:
            raise _denied(new, f"the right to update cluster {', '.join(beyond)} is missing")
        bindings = self._bindings.all()
        lacking = rights.find_uncovered(grants, principal, bindings, project, new.spec.clusters, ctx.now, any_role=True)
        if lacking:
            raise _denied(
                new, f"it gives rights that you lack, or hold for a shorter time: {rights.tell(lacking)}"
            )  # fmt: skip


def _denied(template: ProjectTemplate, why: str) -> errors.Denied:
    return errors.Denied(
        f'cannot write project template "{template.name}": {why}', kind="ProjectTemplate", name=template.name
    )
