"""The core group, as far as clients insist on it: events and namespaces, which the hub has none of.

`kubectl describe` asks for events of what it shows, k9s and others list namespaces before anything else; both take an empty
collection and stumble over a missing group.
"""

from __future__ import annotations

import asyncio
import random

from aiohttp import web

from libs.common import errors
from libs.common.apiserver.watch import INITIAL_EVENTS_END
from services.gateway.answers import answer, dump
from services.gateway.call import Call
from services.gateway.negotiate import parse_accept

KINDS = {"events": "Event", "namespaces": "Namespace"}
_COLUMNS = [{"name": "Name", "type": "string", "format": "name", "description": "Name of the object.", "priority": 0}]
_MAX_WATCH_S = 3600.0


class EmptyCore:
    async def collection(self, call: Call) -> web.StreamResponse:
        """An empty list, or a watch in which nothing happens."""
        plural = call.path("plural")
        if plural not in KINDS:
            raise errors.NotFound("the server could not find the requested resource")
        if call.is_watch:
            return await self._watch(call, KINDS[plural])
        form = parse_accept(call.request.headers.get("Accept", ""))
        metadata = {"resourceVersion": "1"}
        if form.kind == "Table":
            table = {"kind": "Table", "apiVersion": f"meta.k8s.io/{form.version}", "metadata": metadata}
            return answer({**table, "columnDefinitions": _COLUMNS, "rows": []})
        return answer({"kind": f"{KINDS[plural]}List", "apiVersion": "v1", "metadata": metadata, "items": []})

    async def read(self, call: Call) -> web.StreamResponse:
        plural = call.path("plural")
        if plural not in KINDS:
            raise errors.NotFound("the server could not find the requested resource")
        raise errors.NotFound(f'{plural} "{call.path("name")}" not found', name=call.path("name"))

    async def _watch(self, call: Call, kind: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(call.request)
        if call.is_set("sendInitialEvents"):
            metadata = {"resourceVersion": "1", "annotations": {INITIAL_EVENTS_END: "true"}}
            event = {"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": "v1", "metadata": metadata}}
            await response.write(dump(event) + b"\n")
        await asyncio.sleep(min(call.number("timeoutSeconds") or _MAX_WATCH_S, _MAX_WATCH_S * random.uniform(0.5, 1)))
        await response.write_eof()
        return response
