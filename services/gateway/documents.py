"""What describes the API: discovery in all its forms, OpenAPI v3 and v2, and the version. Served from memory, with ETags."""

from __future__ import annotations

import asyncio
from functools import cache

from aiohttp import web

from libs.common import errors
from libs.common.apiserver import discovery, openapi, openapi_v2
from libs.common.apiserver.surface import GROUP_VERSIONS
from libs.common.version import VERSION
from services.gateway.answers import answer, answer_cached, dump
from services.gateway.call import Call
from services.gateway.negotiate import parse_discovery_accept

KUBERNETES_MINOR = "36"
"""The Kubernetes whose API machinery this one follows. Clients warn when theirs is more than one minor version away, and newer
ones decide by it what they may ask for; everything that 1.36's kubectl asks of an API server for custom resources is here."""


class Documents:
    """Handlers of /api, /apis, /openapi and /version."""

    async def api(self, call: Call) -> web.StreamResponse:
        version = parse_discovery_accept(call.request.headers.get("Accept", ""))
        if version:
            return answer_cached(
                call.request, _aggregated(version, core=True), discovery.MEDIA_TYPE.format(version=version)
            )
        return answer_cached(call.request, dump(discovery.render_api_versions()))

    async def apis(self, call: Call) -> web.StreamResponse:
        version = parse_discovery_accept(call.request.headers.get("Accept", ""))
        if version:
            return answer_cached(
                call.request, _aggregated(version, core=False), discovery.MEDIA_TYPE.format(version=version)
            )
        return answer_cached(call.request, dump(discovery.render_group_list()))

    async def group(self, call: Call) -> web.StreamResponse:
        document = discovery.render_group(call.path("group"))
        if document is None:
            raise errors.NotFound("the server could not find the requested resource")
        return answer_cached(call.request, dump(document))

    async def resources(self, call: Call) -> web.StreamResponse:
        document = discovery.render_resources(call.path("group"), call.path("version") or "v1")
        if document is None:
            raise errors.NotFound("the server could not find the requested resource")
        return answer_cached(call.request, dump(document))

    async def openapi_index(self, call: Call) -> web.StreamResponse:
        return answer_cached(call.request, await asyncio.to_thread(_index))

    async def openapi_group(self, call: Call) -> web.StreamResponse:
        """One group version. Asked for by its hash, it may be kept for ever: another content has another address."""
        group, version = call.path("group"), call.path("version") or "v1"
        if (group, version) not in GROUP_VERSIONS:
            raise errors.NotFound("the server could not find the requested resource")
        response = answer_cached(call.request, await asyncio.to_thread(_group, group, version))
        if call.query("hash") == openapi.document_hash(group, version):
            response.headers["Cache-Control"] = "public, immutable, max-age=31536000"
        return response

    async def openapi_v2(self, call: Call) -> web.StreamResponse:
        """JSON, or gnostic's protobuf for who asks for that first: kubectl up to 1.28, Argo CD."""
        for option in call.request.headers.get("Accept", "").split(","):
            media_type = option.split(";")[0].strip()
            if media_type in (openapi_v2.MEDIA_TYPE, openapi_v2.OLD_MEDIA_TYPE):
                body = await asyncio.to_thread(openapi_v2.render_protobuf)
                return answer_cached(call.request, body, openapi_v2.RETURNED_MEDIA_TYPE)
            if media_type in ("application/json", "*/*"):
                break
        return answer_cached(call.request, await asyncio.to_thread(_v2))

    async def version(self, call: Call) -> web.StreamResponse:
        return answer({
            "major": "1", "minor": KUBERNETES_MINOR, "gitVersion": f"v1.{KUBERNETES_MINOR}.0+herdsman-{VERSION}",
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
            "compiler": "", "platform": "linux/amd64",
        })  # fmt: skip


@cache
def _aggregated(version: str, *, core: bool) -> bytes:
    return dump(discovery.render_aggregated(version, core=core))


@cache
def _index() -> bytes:
    return dump(openapi.render_index())


@cache
def _group(group: str, version: str) -> bytes:
    return dump(openapi.render_document(group, version))


@cache
def _v2() -> bytes:
    return dump(openapi_v2.render_document_v2())
