"""Writes of the management API: parse, send to the owner of the kind, wait until this process sees the result, answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import structlog
from aiohttp import web

from libs.common import errors
from libs.common.apiserver import rights, validate
from libs.common.apiserver.selectors import Selectors, parse_selectors
from libs.common.contracts.messages import PatchType, ResourceWrite, ResourceWriteReply, WriteOptions
from libs.common.contracts.methods import WRITE
from libs.common.resources import codec
from libs.common.resources.meta import API_VERSION
from libs.common.resources.registry import ResourceType
from services.gateway.answers import answer, render_success
from services.gateway.api import check_verb, find_type, parse_include, render_form, start_cache
from services.gateway.bodies import Body, check_object, read_body
from services.gateway.call import Call
from services.gateway.negotiate import parse_accept
from services.gateway.sight import check_collection, make_filter
from services.gateway.state import State

TIMEOUT_S = 20.0
"""Above the store's own budget of 15 s, so that its answer arrives."""
_TRIES = 4
_DELETES_AT_ONCE = 8
_PATCH_TYPES: dict[str, PatchType] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/apply-patch+yaml": "apply",
}
_log = structlog.get_logger(__name__)


class Writes:
    """Handlers of POST, PUT, PATCH and DELETE under /apis/management.herdsman.dev/v1."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def create(self, call: Call) -> web.StreamResponse:
        rtype = find_type(call.path("plural"))
        check_verb(rtype, "create")
        body = await read_body(call.request)
        return await self._write(call, rtype, "create", "", body)

    async def update(self, call: Call) -> web.StreamResponse:
        rtype = find_type(call.path("plural"))
        check_verb(rtype, "update", call.path("subresource"))
        body = await read_body(call.request)
        return await self._write(call, rtype, "update", call.path("name"), body)

    async def patch(self, call: Call) -> web.StreamResponse:
        rtype = find_type(call.path("plural"))
        check_verb(rtype, "patch", call.path("subresource"))
        content_type = call.request.headers.get("Content-Type", "").split(";")[0].strip().lower()
        patch_type = _PATCH_TYPES.get(content_type)
        if patch_type is None:
            accepted = ", ".join(_PATCH_TYPES)
            raise errors.UnsupportedMediaType(
                f"the body of the request was in an unknown format - accepted media types include: {accepted}"
            )
        if patch_type == "apply" and not call.query("fieldManager"):
            raise _invalid_option("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
        if patch_type != "apply" and call.query("force"):
            raise _invalid_option("force", "Forbidden: may not be specified for non-apply patch", "FieldValueForbidden")
        body = await read_body(call.request)
        return await self._write(call, rtype, "patch", call.path("name"), body, patch_type)

    async def delete(self, call: Call) -> web.StreamResponse:
        rtype = find_type(call.path("plural"))
        check_verb(rtype, "delete")
        options = parse_delete_options(call, await read_body(call.request))
        reply = await self._send(call, rtype, "delete", call.path("name"), None, None, options)
        if reply.deleted:
            metadata = reply.document["metadata"]
            return answer(render_success(rtype.plural, metadata["name"], metadata["uid"]), warnings=reply.warnings)
        return self._answer(call, rtype, reply)

    async def delete_collection(self, call: Call) -> web.StreamResponse:
        """Delete what the selectors match and the caller sees. Each delete is decided by the owner; answers with what went."""
        rtype = find_type(call.path("plural"))
        check_verb(rtype, "deletecollection")
        rights.check_caller(call.principal, "deletecollection")
        check_collection(self._state.grants.current, call.principal, "deletecollection", rtype)
        selectors = parse_selectors(rtype, call.query("labelSelector"), call.query("fieldSelector"))
        options = parse_delete_options(call, await read_body(call.request))
        cache = self._state.caches[rtype.plural]
        await start_cache(cache)
        shown = make_filter(self._state.grants, call.principal, "deletecollection", rtype, selectors)
        if rtype.plural == "tokens":
            revision = cache.informer.revision
            names = await self._names_of_tokens(call, selectors, shown)
        else:
            entries, revision = cache.snapshot()
            documents = (codec.decode_document(e.value, e.revision) for e in entries)
            names = [d["metadata"]["name"] for d in documents if shown(d)]
        slots = asyncio.Semaphore(_DELETES_AT_ONCE)

        async def delete(name: str) -> dict[str, Any] | None:
            async with slots:
                try:
                    return (await self._send(call, rtype, "delete", name, None, None, options)).document
                except errors.NotFound:
                    return None

        gone = await asyncio.gather(*(delete(name) for name in names))
        items = [document for document in gone if document is not None]
        metadata = {"resourceVersion": str(revision)}
        return answer({"kind": f"{rtype.kind}List", "apiVersion": API_VERSION, "metadata": metadata, "items": items})

    async def _names_of_tokens(
        self, call: Call, selectors: Selectors, shown: Callable[[Mapping[str, Any]], bool]
    ) -> list[str]:
        async with aclosing(self._state.tokens.entries(call.principal, "deletecollection", selectors)) as entries:
            return [
                document["metadata"]["name"]
                async for entry in entries
                if shown(document := codec.decode_document(entry.value, entry.revision))
            ]

    # ── the way to the owner ─────────────────────────────────────────────────────────────────────────────────────────

    async def _write(
        self, call: Call, rtype: ResourceType, verb: str, name: str, body: Body, patch_type: PatchType | None = None
    ) -> web.StreamResponse:
        options = parse_options(call)
        if patch_type != "json":
            check_object(body)
        # Only the text shows keys that came twice: the owner gets the value and finds the unknown ones.
        warnings = validate.check_fields(rtype.model, {}, options.field_validation, body.duplicates)
        reply = await self._send(call, rtype, verb, name, body.value, patch_type, options)
        return self._answer(call, rtype, reply, warnings)

    def _answer(
        self, call: Call, rtype: ResourceType, reply: ResourceWriteReply, warnings: list[str] | None = None
    ) -> web.StreamResponse:
        form = parse_accept(call.request.headers.get("Accept", ""))
        document = render_form(self._state, rtype, reply.document, form, parse_include(call))
        return answer(document, 201 if reply.created else 200, warnings=[*(warnings or []), *reply.warnings])

    async def _send(
        self,
        call: Call,
        rtype: ResourceType,
        verb: str,
        name: str,
        body: Any,
        patch_type: PatchType | None,
        options: WriteOptions,
    ) -> ResourceWriteReply:
        """The owner's reply, once this process sees the write too. Raises what the owner raised."""
        rights.check_caller(call.principal, verb)
        request = ResourceWrite.model_validate({
            "identity": call.envelope, "request_id": call.request_id, "verb": verb, "plural": rtype.plural, "name": name,
            "subresource": call.path("subresource"), "patch_type": patch_type, "body": body, "options": options,
        })  # fmt: skip
        method = WRITE[rtype.owner]
        for attempt in range(1, _TRIES + 1):
            try:
                reply = await self._state.bus.request(method.subject, request, method.reply, timeout_s=TIMEOUT_S)
                break
            except errors.Unavailable:
                # Nothing was written: nobody serves, or the store refused. An owner that restarts is back within a second.
                if attempt == _TRIES:
                    raise
                await asyncio.sleep(random.uniform(0.1, 0.3) * 2**attempt)
        if not options.dry_run and reply.revision:
            await self._wait(rtype, reply.revision, call)
        return reply

    async def _wait(self, rtype: ResourceType, revision: int, call: Call) -> None:
        """Read your own write: the next read of this client finds it."""
        try:
            await self._state.caches[rtype.plural].informer.wait_revision(revision)
        except errors.Timeout:
            _log.warning("own_write_not_seen", plural=rtype.plural, revision=revision, request_id=call.request_id)


def parse_options(call: Call) -> WriteOptions:
    """The options of a write in the query. Raises Invalid."""
    validation = call.query("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise _invalid_option(
            "fieldValidation",
            f'Unsupported value: "{validation}": supported values: "", "Ignore", "Strict", "Warn"',
            "FieldValueNotSupported",
        )
    manager = call.query("fieldManager") or call.request.headers.get("User-Agent", "").partition("/")[0]
    if len(manager) > 128 or not manager.isprintable():
        raise _invalid_option(
            "fieldManager", "Invalid value: must be at most 128 printable characters", "FieldValueInvalid"
        )
    return WriteOptions.model_validate({
        "dry_run": _dry_run(call.request.query.getall("dryRun", [])), "field_manager": manager,
        "field_validation": validation, "force": call.is_set("force"),
    })  # fmt: skip


def parse_delete_options(call: Call, body: Body) -> WriteOptions:
    """Options of a delete: in the query, or as DeleteOptions in the body. Raises BadRequest, Invalid."""
    given = {} if body.value is None else check_object(body)
    preconditions = given.get("preconditions") or {}
    dry_run = given.get("dryRun") or []
    if not isinstance(preconditions, dict) or not isinstance(dry_run, list):
        raise errors.BadRequest("the DeleteOptions in the body can't be understood")
    policy = given.get("propagationPolicy") or call.query("propagationPolicy")
    if policy not in ("", "Background", "Foreground", "Orphan"):
        raise _invalid_option("propagationPolicy", f'Unsupported value: "{policy}"', "FieldValueNotSupported")
    return WriteOptions(
        dry_run=_dry_run([*map(str, dry_run), *call.request.query.getall("dryRun", [])]),
        propagation_policy=policy,
        precondition_uid=str(preconditions.get("uid") or ""),
        precondition_resource_version=str(preconditions.get("resourceVersion") or ""),
    )


def _dry_run(values: list[str]) -> bool:
    for value in values:
        if value not in ("", "All"):
            raise _invalid_option(
                "dryRun", f'Unsupported value: "{value}": supported values: "All"', "FieldValueNotSupported"
            )
    return "All" in values


def _invalid_option(field: str, text: str, reason: str) -> errors.Invalid:
    return errors.Invalid(
        f'Options.meta.k8s.io "" is invalid: {field}: {text}', causes=[errors.Cause(field, text, reason)]
    )
