"""What the gateway makes of HTTP for identity's method `scim`, and how it tells what went wrong on the way."""

from __future__ import annotations

import io
import json

import pytest

from libs.common import errors
from libs.common.contracts.messages import ScimReply
from libs.common.contracts.methods import SCIM
from tests.gateway.support import Hub, real_monotonic

BASE = "/v1/scim/sso/v2"


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        running.calls = []
        running.reply = ScimReply(status=200, document={"meta": {"location": "https://hub/x"}})

        def answer(call):
            running.calls.append(call)
            if isinstance(running.reply, Exception):
                raise running.reply
            return running.reply

        await running.serve(SCIM, answer)
        yield running


async def ask(hub, method, path, body=None, **headers):
    async with hub.request(method, BASE + path, body, by="bob", headers=headers) as answer:
        text = await answer.text()
        return answer.status, json.loads(text) if text else None, answer.headers


@pytest.mark.parametrize(
    ("method", "path", "operation", "kind", "resource_id"),
    [
        ("GET", "/Users", "list", "Users", ""), ("GET", "/Users/", "list", "Users", ""), ("GET", "/Users/7", "read", "Users", "7"),
        ("POST", "/Groups", "create", "Groups", ""), ("PUT", "/Groups/7", "replace", "Groups", "7"), ("PATCH", "/Users/7", "patch", "Users", "7"),
        ("DELETE", "/Users/7", "delete", "Users", "7"), ("GET", "/Schemas/urn:a:b", "read", "Schemas", "urn:a:b"),
    ],
)  # fmt: skip
async def test_an_address_and_a_method_become_an_operation(hub, method, path, operation, kind, resource_id):
    body = {"a": 1} if method in ("POST", "PUT", "PATCH") else None
    status, _, headers = await ask(hub, method, path, body)
    (call,) = hub.calls
    assert (status, headers["Content-Type"], headers["Location"]) == (200, "application/scim+json", "https://hub/x")
    assert (call.provider, call.operation, call.kind, call.id, call.body) == ("sso", operation, kind, resource_id, body)
    assert call.base_url.endswith(BASE)
    assert call.base_url.startswith("https://")


async def test_only_the_parameters_of_scim_go_on(hub):
    await ask(hub, "GET", '/Users?filter=userName%20eq%20"a"&count=2&password=x')
    assert hub.calls[0].query == {"filter": 'userName eq "a"', "count": "2"}


@pytest.mark.parametrize(
    ("method", "path", "wanted"),
    [
        ("GET", "/nothing", 404), ("GET", "/Users/7/8", 404), ("GET", f"/Users/{'x' * 257}", 404), ("GET", "/", 404), ("DELETE", "/Users", 405),
        ("POST", "/Users/7", 405), ("POST", "/Schemas", 405), ("PUT", "/ServiceProviderConfig", 405), ("POST", "/Bulk", 501), ("GET", "/Me", 501),
        ("POST", "/.search", 501), ("POST", "/Users/.search", 501),
    ],
)  # fmt: skip
async def test_what_is_not_here_is_told_in_the_form_of_scim(hub, method, path, wanted):
    status, document, headers = await ask(hub, method, path)
    assert (status, document["status"]) == (wanted, str(wanted))
    assert document["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
    assert headers["Content-Type"] == "application/scim+json"
    assert ("Allow" in headers) == (wanted == 405)
    assert hub.calls == []


async def test_what_identity_refuses_is_told_in_the_form_of_scim(hub):
    for error in (errors.Denied("no"), errors.NotFound("no"), errors.Unavailable("no", retry_after_s=3)):
        hub.reply = error
        status, document, headers = await ask(hub, "GET", "/Users")
        assert (status, document["detail"]) == (error.http_status, "no")
        assert headers.get("Retry-After") == ("3" if error.retry_after_s else None)


async def test_a_body_is_a_json_object_of_a_known_type_and_size(hub):
    yaml, plain = "application/yaml", "application/scim+json"
    for data, content_type, wanted in ((b"[1]", plain, 400), (b"a: 1", yaml, 415), (b" " * 2_000_000, plain, 413)):
        request = hub.request(
            "POST", f"{BASE}/Users", data=io.BytesIO(data), by="bob", headers={"Content-Type": content_type}
        )
        async with request as answer:
            assert (answer.status, (await answer.json(content_type=None))["status"]) == (wanted, str(wanted))
    assert hub.calls == []


async def test_an_answer_without_a_document_has_no_body(hub):
    hub.reply = ScimReply(status=204)
    status, document, headers = await ask(hub, "DELETE", "/Users/7")
    assert (status, document) == (204, None)
    assert "Location" not in headers
