"""Failures become families, what may be repeated is repeated, and a watch resumes where it was. The server here only plays failures:
what a real API server does is tested in `integration/agent`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.kube.endpoint import Endpoint
from libs.common.kube.failures import error_of_answer
from libs.common.kube.objects import content_hash, is_satisfied
from libs.common.kube.reflector import Changed, Deleted, Listed, Reflector

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[KubeClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with KubeClient(Endpoint(url), user_agent="tests", retry_budget_s=3) as client:
        yield client
    await runner.cleanup()


def status(code: int, reason: str, message: str = "because") -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message}, status=code)


@pytest.mark.parametrize(
    ("code", "body", "family"),
    [
        (404, {"kind": "Status", "reason": "NotFound"}, errors.NotFound),
        (409, {"kind": "Status", "reason": "AlreadyExists"}, errors.AlreadyExists),
        (409, {"kind": "Status", "reason": "Conflict"}, errors.Conflict),
        (410, {"kind": "Status", "reason": "Expired"}, errors.Expired),
        (403, {"kind": "Status", "reason": "Forbidden"}, errors.Denied),
        (401, {"kind": "Status", "reason": "Unauthorized"}, errors.Unauthenticated),
        (422, {"kind": "Status", "reason": "Invalid"}, errors.Invalid),
        (500, {"kind": "Status", "reason": "InternalError"}, errors.Unavailable),
        (504, {"kind": "Status", "reason": "Timeout"}, errors.Timeout),
        (418, {"kind": "Status", "reason": "Strange"}, errors.Unavailable),
        (502, None, errors.Unavailable),
        (401, None, errors.Unauthenticated),
    ],
)
def test_every_answer_becomes_a_family(
    code: int, body: dict[str, Any] | None, family: type[errors.HerdsmanError]
) -> None:
    raw = b"<html>balancer</html>" if body is None else json.dumps(body).encode()
    error = error_of_answer(code, raw, "7", "read x")
    assert type(error) is family
    assert error.retry_after_s == 7
    assert error.message.startswith("cannot read x: ")
    assert "\n" not in error.message


async def test_a_read_is_repeated_after_a_failure_and_a_create_is_not() -> None:
    calls: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        calls.append(request.method)
        return status(503, "ServiceUnavailable") if len(calls) < 3 else web.json_response({"ok": True})

    async with server(handle) as client:
        assert await client.get("/x") == {"ok": True}
        assert calls == ["GET"] * 3
        calls.clear()
        with pytest.raises(errors.Unavailable):
            await client.create("/x", {})
        assert calls == ["POST"]


async def test_deleting_what_is_gone_is_done_and_another_of_the_name_is_a_conflict() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        options = await request.json()
        assert options["preconditions"] == {"uid": "u"}
        return status(404, "NotFound") if request.path == "/gone" else status(409, "Conflict")

    async with server(handle) as client:
        await client.delete("/gone", uid="u")
        with pytest.raises(errors.Conflict):
            await client.delete("/other", uid="u")


async def test_redirects_are_not_followed_with_our_credential() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/elsewhere")

    async with server(handle) as client:
        with pytest.raises(errors.HerdsmanError):
            await client.get_text("/x")


async def test_a_silent_server_is_a_timeout_and_an_absent_one_is_unavailable() -> None:
    silent = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        await silent.wait()
        return web.Response()

    async with server(handle) as client:
        with pytest.raises(errors.Timeout, match="did not answer in time"):
            await client.get_text("/x", timeout_s=0.2)
        silent.set()
    async with KubeClient(Endpoint("http://127.0.0.1:1"), user_agent="t", retry_budget_s=0.1) as client:
        with pytest.raises(errors.Unavailable, match="cannot connect to the API server"):
            await client.get("/x")


def item(name: str, version: int, size: int = 0) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "pad": "x" * size}


async def test_a_reflector_lists_in_pages_watches_resumes_and_lists_again_when_it_is_too_late() -> None:
    watches: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        query = request.query
        if "watch" not in query:
            if query.get("continue"):
                return web.json_response({"metadata": {"resourceVersion": "10"}, "items": [item("b", 2)]})
            return web.json_response(
                {"metadata": {"resourceVersion": "10", "continue": "more"}, "items": [item("a", 1)]}
            )
        watches.append(query["resourceVersion"])
        if len(watches) == 3:
            return status(410, "Expired")
        events = {
            1: [("MODIFIED", item("a", 11, 300_000)), ("BOOKMARK", item("", 15))],
            2: [("DELETED", item("b", 16))],
        }.get(len(watches), [])
        answer = web.StreamResponse()
        await answer.prepare(request)
        for type_, document in events:
            await answer.write(json.dumps({"type": type_, "object": document}).encode() + b"\n")
        return answer

    seen: list[str] = []
    async with server(handle) as client:
        async for what in Reflector(client, "/x", page=1).run():
            if isinstance(what, Listed):
                seen.append(f"list {what.items[0]['metadata']['name']} {what.first} {what.last}")
            elif isinstance(what, Changed):
                seen.append(f"changed {len(what.object['pad'])}")
            elif isinstance(what, Deleted):
                seen.append(f"deleted {what.object['metadata']['name']}")
            if len(seen) == 6:
                break
    assert seen == [
        "list a True False",
        "list b False True",
        "changed 300000",
        "deleted b",
        "list a True False",
        "list b False True",
    ]
    assert watches == ["10", "15", "16"]


def test_satisfied_means_all_that_is_asked_for_and_lists_as_wholes() -> None:
    assert is_satisfied({"a": 1, "b": 2}, {"a": 1})
    assert not is_satisfied({"a": 1}, {"a": 1, "b": 2})
    assert is_satisfied({"l": [{"x": 1, "default": True}]}, {"l": [{"x": 1}]})
    assert not is_satisfied({"l": [1, 2]}, {"l": [1]})
    assert not is_satisfied({"l": [1]}, {"l": []})
    assert is_satisfied({}, {"l": []})
    assert is_satisfied(None, {})


def test_the_hash_of_a_set_does_not_depend_on_order() -> None:
    a, b = {"x": 1, "y": [1, 2]}, {"z": 3}
    assert content_hash([a, b]) == content_hash([b, {"y": [1, 2], "x": 1}])
    assert content_hash([a]) != content_hash([a, b])
    assert content_hash([a]) != content_hash([{"x": 1, "y": [2, 1]}])
