"""Answers of the gateway: documents, Status objects and warnings, always JSON, and the ETag of what rarely changes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from aiohttp import web

from libs.common import errors
from libs.common.resources.meta import GROUP

YIELD_EVERY = 256
"""Items written to JSON without letting other calls run."""


def dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def answer(
    document: Any, status: int = 200, *, warnings: Iterable[str] = (), headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer; each warning becomes a header that kubectl prints."""
    response = web.Response(body=dump(document), status=status, content_type="application/json", headers=headers)
    for text in warnings:
        response.headers.add("Warning", f'299 - "{_quoted(text)}"')
    return response


async def answer_list(envelope: Mapping[str, Any], field: str, items: Sequence[Any]) -> web.Response:
    """A JSON answer with a long list under `field`, written piece by piece so that the loop stays free."""
    head = dump({**envelope, field: []})
    parts: list[bytes] = []
    for number, item in enumerate(items):
        if number and number % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        parts.append(dump(item))
    # `field` is the last key: the list is filled in before the closing "]}".
    return web.Response(body=head[:-2] + b",".join(parts) + head[-2:], content_type="application/json")


async def stream_list(
    request: web.Request, envelope: Mapping[str, Any], field: str, items: AsyncGenerator[Any, None]
) -> web.StreamResponse:
    """As `answer_list`, sent while the items come: for lists that are too long to hold. What fails on the way cuts the answer short."""
    head = dump({**envelope, field: []})
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    async with aclosing(items):
        parts = [item async for item in _take(items)]
        await response.prepare(request)
        await response.write(head[:-2])
        separator = b""
        while parts:
            await response.write(separator + b",".join(map(dump, parts)))
            separator = b","
            parts = [item async for item in _take(items)]
    await response.write(head[-2:])
    await response.write_eof()
    return response


async def _take(items: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The next `YIELD_EVERY` at most."""
    for _ in range(YIELD_EVERY):
        try:
            yield await anext(items)
        except StopAsyncIteration:
            return


def answer_cached(request: web.Request, body: bytes, content_type: str = "application/json") -> web.Response:
    """A document that only a new version changes: 304 for who has it."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32].upper()}"'
    headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": "private, no-cache"}
    asked = request.headers.get("If-None-Match", "")
    if etag in (part.strip().removeprefix("W/") for part in asked.split(",")):
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers={**headers, "Content-Type": content_type})


def answer_error(error: errors.HerdsmanError) -> web.Response:
    """The Status object of an error. Retry-After only where the family says so: kubectl retries eleven times on it."""
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else None
    group = GROUP if error.kind else ""
    return answer(error.to_status(group), error.http_status, headers=headers)


def render_success(plural: str, name: str, uid: str) -> dict[str, Any]:
    """The Status of a delete that is done."""
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {"name": name, "group": GROUP, "kind": plural, "uid": uid},
    }  # fmt: skip


def _quoted(text: str) -> str:
    """A quoted-string of one header line; what is not printable ASCII is escaped."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)[:1024]
    return plain.replace("\\", "\\\\").replace('"', '\\"')
