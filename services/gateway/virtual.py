"""Resources that are answered and never stored: kubeconfigs, API tokens, and registrations of clusters. What they hold is seen once."""

from __future__ import annotations

from typing import TypeVar

from aiohttp import web

from libs.common import errors
from libs.common.apiserver import changes, rights, validate
from libs.common.apiserver.virtual_kinds import ClusterRegistration, Kubeconfig, TokenRequest
from libs.common.contracts.messages import IssuedRegistration, RegistrationIssue, TokenIssue
from libs.common.contracts.methods import ISSUE_REGISTRATION, ISSUE_TOKEN
from libs.common.resources.meta import Resource
from services.gateway.answers import answer
from services.gateway.bodies import Body, read_body
from services.gateway.call import Call
from services.gateway.kubeconfig import import_command, manifest_url, render_kubeconfig
from services.gateway.state import State
from services.gateway.writes import parse_options

V = TypeVar("V", bound=Resource)


class Virtual:
    def __init__(self, state: State) -> None:
        self._state = state

    async def create_kubeconfig(self, call: Call) -> web.StreamResponse:
        """A kubeconfig with a fresh token of the caller, or with none. Raises NotFound for a cluster that the caller can't see."""
        rights.check_caller(call.principal, "create")
        wanted, warnings, dry_run = parse_kind(call, Kubeconfig, await read_body(call.request))
        visible = self._visible(call)
        _check_visible(wanted.spec.clusters, visible)
        if wanted.spec.without_token:
            wanted.status.kubeconfig = render_kubeconfig(
                self._state.config.public_url, self._state.ca, call.principal.user, "",
                wanted.spec.clusters or visible, with_hub=not wanted.spec.clusters,
            )  # fmt: skip
        elif not dry_run:
            issued = await self._state.bus.request(
                ISSUE_TOKEN.subject,
                TokenIssue(
                    identity=call.envelope, purpose="kubeconfig", description=wanted.spec.description or "kubeconfig",
                    clusters=wanted.spec.clusters, read_only=wanted.spec.read_only, ttl_s=wanted.spec.ttl_seconds,
                ),
                ISSUE_TOKEN.reply,
            )  # fmt: skip
            wanted.status.kubeconfig = render_kubeconfig(
                self._state.config.public_url, self._state.ca, call.principal.user, issued.token,
                wanted.spec.clusters or visible, with_hub=not wanted.spec.clusters,
            )  # fmt: skip
            wanted.status.token_name, wanted.status.expires_at = issued.name, issued.expires_at
        return self._answer(wanted, warnings)

    async def create_token(self, call: Call) -> web.StreamResponse:
        """An API token of the caller, for scripts. Raises NotFound for a cluster that the caller can't see."""
        rights.check_caller(call.principal, "create")
        wanted, warnings, dry_run = parse_kind(call, TokenRequest, await read_body(call.request))
        _check_visible(wanted.spec.clusters, self._visible(call))
        if not wanted.spec.user:
            self._check_projects(call, wanted.spec.projects)
        if not dry_run:
            issued = await self._state.bus.request(
                ISSUE_TOKEN.subject,
                TokenIssue(
                    identity=call.envelope, purpose=wanted.spec.purpose, description=wanted.spec.description,
                    user=wanted.spec.user, clusters=wanted.spec.clusters, projects=wanted.spec.projects, read_only=wanted.spec.read_only, ttl_s=wanted.spec.ttl_seconds,
                ),
                ISSUE_TOKEN.reply,
            )  # fmt: skip
            status = wanted.status
            status.token, status.name, status.expires_at = issued.token, issued.name, issued.expires_at
        return self._answer(wanted, warnings)

    async def create_registration(self, call: Call) -> web.StreamResponse:
        """A one-time registration token for a cluster; its owner decides who may have one."""
        rights.check_caller(call.principal, "create")
        wanted, warnings, dry_run = parse_kind(call, ClusterRegistration, await read_body(call.request))
        wanted.metadata.name = cluster = call.path("name")
        if not dry_run:
            request = RegistrationIssue(identity=call.envelope, cluster=cluster, ttl_s=wanted.spec.ttl_seconds)
            issued: IssuedRegistration = await self._state.bus.request(
                ISSUE_REGISTRATION.subject, request, ISSUE_REGISTRATION.reply
            )
            url = manifest_url(self._state.config.public_url, issued.token)
            wanted.status.token, wanted.status.expires_at = issued.token, issued.expires_at
            wanted.status.manifest_url, wanted.status.command = url, import_command(url, self._state.ca)
        return self._answer(wanted, warnings)

    def _check_projects(self, call: Call, wanted: list[str]) -> None:
        """Raises NotFound for a project in which the caller has no role, whether there is one of the name or not."""
        held = self._state.grants.current.held_projects(call.principal)
        for name in wanted:
            if name not in held:
                raise errors.NotFound(
                    f'projects.management.herdsman.dev "{name}" not found, or you have no role in it',
                    kind="projects",
                    name=name,
                )

    def _visible(self, call: Call) -> list[str]:
        """Names of the clusters that the caller may see, sorted."""
        grants = self._state.grants.current
        visible = grants.visible_clusters(call.principal)
        return sorted(grants.clusters if visible is None else visible)

    def _answer(self, resource: Resource, warnings: list[str]) -> web.Response:
        """201, and `no-store`: nobody between here and the client may keep a secret."""
        resource.metadata.creation_timestamp = self._state.now()
        return answer(resource.to_document(), 201, warnings=warnings, headers={"Cache-Control": "no-store"})


def _check_visible(wanted: list[str], visible: list[str]) -> None:
    for name in wanted:
        if name not in visible:
            raise errors.NotFound(f'clusters.management.herdsman.dev "{name}" not found', kind="clusters", name=name)


def parse_kind(call: Call, model: type[V], body: Body) -> tuple[V, list[str], bool]:
    """The valid object in the body, the warnings, and whether this is a dry run. An empty body asks for the defaults."""
    options = parse_options(call)
    document = changes.check_document(model, {} if body.value is None else body.value)
    warnings = validate.check_fields(model, document, options.field_validation, body.duplicates)
    document.pop("status", None)
    name = str((document.get("metadata") or {}).get("name") or "")
    return validate.parse_object(model, document, name), warnings, options.dry_run
