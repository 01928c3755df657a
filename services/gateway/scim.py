"""SCIM 2.0 for identity providers that push their users and groups: HTTP ↔ identity's method `scim`, which decides all.

Below `/v1/scim/{provider}/v2/`. What went wrong on the way is told in SCIM's form (RFC 7644 section 3.12), for the providers' logs show that.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from aiohttp import web

from libs.common import errors
from libs.common.contracts.messages import ScimCall
from libs.common.contracts.methods import SCIM
from services.gateway.answers import dump
from services.gateway.bodies import check_object, parse_json, read_bytes
from services.gateway.call import Call
from services.gateway.state import State

SCIM_S = 50.0
"""A group of thousands is written at each of its members."""
MEDIA_TYPE = "application/scim+json"
_BODIES = (MEDIA_TYPE, "application/json")
_ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
_PARAMETERS = ("filter", "startIndex", "count", "attributes", "excludedAttributes")
_RESOURCES, _ABOUT = ("Users", "Groups"), ("ServiceProviderConfig", "ResourceTypes", "Schemas")
_Operation = Literal["list", "read", "create", "replace", "patch", "delete"]
_OF_COLLECTION: dict[str, _Operation] = {"GET": "list", "POST": "create"}
_OF_ONE: dict[str, _Operation] = {"GET": "read", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_WITH_BODY = ("create", "replace", "patch")


class Scim:
    def __init__(self, state: State) -> None:
        self._state = state

    async def serve(self, call: Call) -> web.StreamResponse:
        try:
            return await self._serve(call)
        except errors.HerdsmanError as exc:
            headers = {"Retry-After": str(exc.retry_after_s)} if exc.retry_after_s is not None else {}
            return _answer(exc.http_status, _error(exc.http_status, exc.message), headers)

    async def _serve(self, call: Call) -> web.StreamResponse:
        kind, _, resource_id = call.path("path").rstrip("/").partition("/")
        if kind in ("Bulk", "Me", ".search") or resource_id == ".search":
            return _answer(501, _error(501, f"{kind} is not supported: see ServiceProviderConfig"))
        if kind not in (*_RESOURCES, *_ABOUT) or "/" in resource_id or len(resource_id) > 256:
            raise errors.NotFound("there is nothing at this address")
        allowed = _OF_ONE if resource_id else _OF_COLLECTION
        operation = allowed.get(call.request.method)
        if operation is None or (kind in _ABOUT and call.request.method != "GET"):
            methods = ["GET"] if kind in _ABOUT else list(allowed)
            return _answer(
                405, _error(405, f"{call.request.method} is not possible here"), {"Allow": ", ".join(methods)}
            )
        provider = call.path("provider")[:63]
        base = f"{self._state.config.public_url.rstrip('/')}/v1/scim/{provider}/v2"
        request = ScimCall(
            identity=call.envelope, provider=provider, operation=operation, kind=cast(Any, kind), id=resource_id,
            query={name: call.query(name) for name in _PARAMETERS if call.query(name)},
            body=await _read(call) if operation in _WITH_BODY else None, base_url=base,
        )  # fmt: skip
        reply = await self._state.bus.request(SCIM.subject, request, SCIM.reply, timeout_s=SCIM_S)
        location = (reply.document or {}).get("meta", {}).get("location")
        return _answer(reply.status, reply.document, {"Location": location} if location else {})


async def _read(call: Call) -> dict[str, Any]:
    content_type = call.request.headers.get("Content-Type", MEDIA_TYPE).split(";")[0].strip().lower()
    if content_type not in _BODIES:
        raise errors.UnsupportedMediaType(f"the body must be {MEDIA_TYPE}")
    return check_object(parse_json(await read_bytes(call.request)))


def _error(status: int, detail: str) -> dict[str, Any]:
    return {"schemas": [_ERROR], "status": str(status), "detail": detail}


def _answer(status: int, document: dict[str, Any] | None, headers: dict[str, str] | None = None) -> web.Response:
    body = None if document is None else dump(document)
    content_type = None if document is None else MEDIA_TYPE
    return web.Response(
        body=body, status=status, content_type=content_type, headers={"Cache-Control": "no-store", **(headers or {})}
    )
