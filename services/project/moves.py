"""Moves a namespace from one project to another in one step: it is never in none, and never in both.

Both projects and the namespace's claim are written in one batch, each compared with what was read. The mover needs what taking it out
of the one and bringing it into the other needs. Serves `move_namespace`.
"""

from __future__ import annotations

from collections.abc import Mapping

from libs.common import errors
from libs.common.apiserver import metadata
from libs.common.apiserver import rights as api_rights
from libs.common.apiserver.strategy import WriteContext
from libs.common.bus.base import Message
from libs.common.contracts.messages import NamespaceMove, NamespaceMoved
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.projects import Project, ProjectNamespace
from libs.common.store.objects import read
from services.project import rules, shares
from services.project.means import Means
from services.project.retry import again
from services.project.writes import PROJECTS, put_of

MANAGER = "herdsman-project-move"


class Mover:
    def __init__(self, means: Means) -> None:
        self._means = means

    async def handle(self, request: NamespaceMove, _message: Message | None = None) -> NamespaceMoved:
        """Raises NotFound, Denied, Invalid with the field of the project that it does not fit; Conflict when others write all the time."""
        return await again(lambda: self._move(request))

    async def _move(self, request: NamespaceMove) -> NamespaceMoved:
        ctx = self._means.open(request, "update")
        key = rules.parse_key(request.project, request.cluster, request.namespace)
        target = await self._read_allowed(ctx, request.project)
        source = await self._means.claims.holder_of(key)
        if source is None or not _may_see(ctx, source):
            raise errors.NotFound(
                f"namespace {key[0]}/{key[1]} is in no project that you may see: bring it in by the project's spec.namespaces",
                kind="namespaces", name=key[1],
            )  # fmt: skip
        if request.source and source.name != request.source:
            raise errors.Invalid(
                f'namespace {key[0]}/{key[1]} is in project "{source.name}" now, not in "{request.source}": look again'
            )
        if source.name == target.name:
            document = codec.to_document(target)
            return NamespaceMoved(source=document, target=document)
        self._check_allowed(ctx, source)
        left, joined = _plan(source, target, key, ctx.grants.clusters)
        self._means.strategy.check_rights(ctx, source, left)
        self._means.strategy.check_rights(ctx, target, joined)
        self._means.strategy.check(ctx, source, left, {})
        self._means.strategy.check(ctx, target, joined, {})
        await self._write(ctx, key, (source, left), (target, joined))
        log.get("project").info(
            "namespace_moved", cluster=key[0], namespace=key[1], source=source.name, target=target.name,
            principal_id=ctx.principal.principal_id, request_id=request.request_id,
        )  # fmt: skip
        return NamespaceMoved(source=codec.to_document(left), target=codec.to_document(joined))

    async def _write(
        self, ctx: WriteContext, key: rules.Key, leaving: tuple[Project, Project], joining: tuple[Project, Project]
    ) -> None:
        puts = [await self._means.claims.move(key, leaving[0], joining[0])]
        for old, new in (leaving, joining):
            puts.append(put_of(old, new, MANAGER, ctx.now))
        revision = await self._means.store.batch(puts)
        # A batch's writes have rising revisions without a gap.
        leaving[1].metadata.resource_version = str(revision - 1)
        joining[1].metadata.resource_version = str(revision)

    async def _read_allowed(self, ctx: WriteContext, name: str) -> Project:
        try:
            project: Project | None = await read(self._means.store, Project, name)
        except errors.NotFound:
            project = None
        self._check_allowed(ctx, project, name)
        assert project is not None, "check_object raises for what is absent"
        if project.deleting:
            raise metadata.stale(Project, name)
        return project

    def _check_allowed(self, ctx: WriteContext, project: Project | None, name: str = "") -> None:
        document = codec.to_document(project) if project is not None else None
        api_rights.check_object(
            ctx.grants, ctx.principal, "update", PROJECTS, name or (project.name if project else ""), document
        )


def _plan(source: Project, target: Project, key: rules.Key, clusters: Mapping[str, str]) -> tuple[Project, Project]:
    """Both as they will be, the quota's shares among them. What was given of the one project's quota is nothing to the other.

    Whoever made the namespace, its new project finds it: `create` is for what is not there yet.
    """
    left, joined = source.model_copy(deep=True), target.model_copy(deep=True)
    left.spec.namespaces = [n for n in left.spec.namespaces if rules.key_of(n) != key]
    joined.spec.namespaces.append(ProjectNamespace(cluster=key[0], namespace=key[1]))
    rules.settle(target, joined, clusters)
    shares.fill_shares(source, left)
    shares.fill_shares(target, joined)
    return left, joined


def _may_see(ctx: WriteContext, project: Project) -> bool:
    return ctx.grants.is_allowed(ctx.principal, "get", "projects", project.name)
