"""Projects that people make by themselves: what a template says, with the maker's words for name and description.

Serves `make_project`. The maker needs the right `create` on `projecttemplates/projects` and nothing more, because who wrote the template
held all that it gives (`template_strategy`). How many projects of one template a person has is counted in a key of its own, which is
written in the batch that makes the project, so that it is exact over replicas; projects that are gone no longer count.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets

import msgpack

from libs.common import errors
from libs.common.apiserver import creator, managed_fields, metadata, sizes, validate
from libs.common.apiserver import rights as api_rights
from libs.common.apiserver.strategy import WriteContext
from libs.common.bus.base import Message
from libs.common.contracts.messages import ProjectMade, ProjectMake
from libs.common.observe import log
from libs.common.resources import codec
from libs.common.resources.meta import ManagedFieldsEntry
from libs.common.resources.projects import Project, ProjectNamespace, ProjectSpec, ProjectTemplate
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Put
from libs.common.store.objects import read
from services.project import rules, shares
from services.project.means import Means
from services.project.retry import again
from services.project.writes import PROJECTS

TEMPLATES = BY_MODEL[ProjectTemplate]
COUNTS = "madeof"
LABEL = "management.herdsman.dev/template"
MANAGER = "herdsman-project-template"
COPIED = ("quota", "container_limits", "isolated", "default_deny", "guarded", "pod_security", "labels", "annotations")


def render_spec(template: ProjectTemplate, name: str, display_name: str = "", description: str = "") -> ProjectSpec:
    """What a project of this name begins with."""
    spec = template.spec.model_copy(deep=True)
    return ProjectSpec(
        display_name=display_name,
        description=description,
        namespaces=[ProjectNamespace(cluster=c, namespace=name, create=True) for c in spec.clusters],
        **{field: getattr(spec, field) for field in COPIED},
    )


class TemplateMaker:
    def __init__(self, means: Means) -> None:
        self._means = means

    async def handle(self, request: ProjectMake, _message: Message | None = None) -> ProjectMade:
        """Raises NotFound, Denied, Invalid; AlreadyExists for a name that is taken, which gives no right in that project."""
        ctx = self._means.open(request, "create")
        template = await self._find(ctx, request.template)
        rules.parse_key(request.name, "cluster", "namespace")
        project = await again(lambda: self._make(ctx, template, request))
        log.get("project").info(
            "project_made", project=project.name, template=template.name, principal_id=ctx.principal.principal_id,
            request_id=request.request_id,
        )  # fmt: skip
        return ProjectMade(document=codec.to_document(project))

    async def _find(self, ctx: WriteContext, name: str) -> ProjectTemplate:
        metadata_only = {"metadata": {"name": name}}
        template: ProjectTemplate | None = None
        with contextlib.suppress(errors.NotFound, ValueError):  # said below, in the words for what is absent
            template = await read(self._means.store, ProjectTemplate, name)
        may = ctx.grants.is_allowed(ctx.principal, "create", TEMPLATES.plural, name, subresource="projects")
        if template is not None and may:
            return template
        if may:
            raise api_rights.absent(TEMPLATES, name)
        api_rights.check_object(
            ctx.grants, ctx.principal, "get", TEMPLATES, name, metadata_only if template is not None else None
        )
        raise validate.denied(ctx.principal.user, "create", ProjectTemplate, name, subresource="projects")

    async def _make(self, ctx: WriteContext, template: ProjectTemplate, request: ProjectMake) -> Project:
        wanted = {"metadata": {"name": request.name, "labels": {LABEL: template.name}}}
        project = Project.model_validate(metadata.prepare_create(Project, wanted, request.name, ctx.now))
        project.spec = render_spec(template, request.name, request.display_name, request.description)
        here = [n for n in project.spec.namespaces if n.cluster in ctx.grants.clusters]
        if len(here) < len(project.spec.namespaces):
            log.get("project").warning("template_names_gone_cluster", template=template.name)
        project.spec.namespaces = here
        project = creator.keep(ctx.principal, None, project)
        rules.settle(None, project, ctx.grants.clusters)
        shares.fill_shares(None, project)
        holders = await self._means.claims.find_holders(project.spec.namespaces, project.name)
        self._means.strategy.check(ctx, None, project, dict.fromkeys(holders, "another project"))
        puts = [await self._count(ctx, template, project), *await self._means.claims.plan(None, project)]
        document = codec.to_document(project)
        managers = managed_fields.render_managers(managed_fields.record_update([], {}, document, MANAGER, ctx.now))
        project.metadata.managed_fields = [ManagedFieldsEntry.model_validate(entry) for entry in managers]
        puts.append(Put(PROJECTS.key(project.name), sizes.encode_checked(PROJECTS, project), 0))
        try:
            project.metadata.resource_version = str(await self._means.store.batch(puts))
        except errors.Conflict:
            await self._check_absent(project.name)
            raise
        return project

    async def _count(self, ctx: WriteContext, template: ProjectTemplate, project: Project) -> Put:
        """The person's projects of this template, with this one. Raises Denied when they have as many as they may."""
        key = count_key(template.uid, ctx.principal.user_uid)
        try:
            entry = await self._means.store.get(key)
            counted: dict[str, str] = msgpack.unpackb(entry.value)[0]
            revision = entry.revision
        except errors.NotFound:
            counted, revision = {}, 0
        living = {name: uid for name, uid in counted.items() if await self._is_living(name, uid)}
        if len(living) >= template.spec.max_per_person:
            raise errors.Denied(
                f'you have {len(living)} projects of template "{template.name}" already, which is as many as it gives: {", ".join(sorted(living))}',
                kind="Project", name=project.name,
            )  # fmt: skip
        return Put(key, msgpack.packb(({**living, project.name: project.uid}, secrets.token_hex(8))), revision)

    async def _is_living(self, name: str, uid: str) -> bool:
        try:
            return (await read(self._means.store, Project, name)).uid == uid
        except errors.NotFound:
            return False

    async def _check_absent(self, name: str) -> None:
        try:
            await read(self._means.store, Project, name)
        except errors.NotFound:
            return
        raise errors.AlreadyExists(
            f'projects.management.herdsman.dev "{name}" already exists', kind="projects", name=name
        )


def count_key(template_uid: str, user_uid: str) -> str:
    digest = hashlib.sha256(f"{template_uid}\n{user_uid}".encode()).hexdigest()[:40]
    return f"{COUNTS}.{digest}"
