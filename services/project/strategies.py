"""Writing Projects: namespaces that exist once, put in and taken out by those who may."""

from __future__ import annotations

from libs.common import errors
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.projects import Project, ProjectNamespace
from libs.common.store.objects import Objects
from services.project import rules


class ProjectStrategy(Strategy[Project]):
    """The name is part of a group name, so it is a label."""

    model = Project
    name_is_label = True
    keeps_creator = True

    def __init__(self, projects: Objects[Project]) -> None:
        self._projects = projects

    async def admit(self, ctx: WriteContext, old: Project | None, new: Project) -> None:
        """Raises Invalid for namespaces that can't be in this project, Denied for clusters that the caller may not update."""
        if ctx.subresource:
            raise errors.Denied("the status of a project is written by the hub alone", kind="Project", name=new.name)
        added = rules.find_added(old, new)
        removed = rules.find_removed(old, new) if old is not None else []
        self._check_may_move(ctx, new.name, added, removed)
        causes = rules.check_namespaces(
            new, self._projects.all(), ctx.grants.clusters, {rules.key_of(n) for n in added}
        )
        if causes:
            raise validate.invalid(Project, new.name, causes)

    def _check_may_move(
        self, ctx: WriteContext, name: str, added: list[ProjectNamespace], removed: list[ProjectNamespace]
    ) -> None:
        """Moving a namespace gives its members rights in the cluster, or takes them: that is for who may update the cluster.

        The words are the same for a cluster that is absent and one that the caller can't see.
        """
        grants = ctx.grants
        touched = {n.cluster for n in added} | ({n.cluster for n in removed} & grants.clusters.keys())
        beyond = sorted(c for c in touched if not grants.is_allowed(ctx.principal, "update", "clusters", c, c))
        if beyond:
            raise errors.Denied(
                f'cannot change the namespaces of project "{name}": the right to update cluster {", ".join(beyond)} is missing',
                kind="Project", name=name,
            )  # fmt: skip
