"""Every route of the gateway, taken from its own table: a stranger without a name is 401, one with a name gets nothing of others.

CVE-2025-62714 and CVE-2024-46528: an API that forgot to ask who calls, and ids that nobody checked. What is public stands here, and a
route that is added is walked without anybody remembering to.
"""

from __future__ import annotations

import json

import pytest

from libs.common.resources.registry import RESOURCE_TYPES
from services.gateway.routes import OURS, render_routes
from tests.gateway.support import Hub, make_principal, real_monotonic

PUBLIC = {
    ("GET", "/healthz"), ("GET", "/livez"), ("GET", "/readyz"), ("GET", "/"), ("GET", "/ui"), ("GET", "/ui/{file:.*}"), ("GET", "/version"),
    ("GET", "/v1/sign-in"), ("POST", "/v1/devices"), ("POST", "/v1/devices/fetch"), ("GET", "/v1/sign-in/{provider}"), ("GET", "/v1/callback/{provider}"), ("POST", "/v1/login"), ("POST", "/v1/token"), ("POST", "/v1/back-channel-logout/{provider}"), ("POST", "/v1/agents/register"), ("GET", "/v1/import/{token}.yaml"),
}  # fmt: skip
"""What answers without a name: probes, the page, sign-in and the ways to it, a provider's word that somebody signed out there, and what an agent's one-time token opens."""

FOR_ALL = {
    "/api", "/apis", "/api/v1", "/apis/{group}", "/apis/{group}/{version}", "/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1",
    "/openapi/v3/apis/{group}/{version}", "/api/v1/{plural}", "/api/v1/{plural}/{name}", "/api/v1/namespaces/{namespace}/{plural}",
    "/api/v1/namespaces/{namespace}/{plural}/{name}", "/v1/audit/key",
}  # fmt: skip
"""What says the same to everybody who signed in: discovery, the empty core group, and the key that verifies the log."""

OWN = {
    "/v1/logout", "/v1/devices/answer", "/v1/session", "/v1/second-factor", "/v1/second-factor/confirm", "/v1/second-factor/remove", "/v1/password", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
    "/apis/authentication.k8s.io/{version:v1|v1beta1}/selfsubjectreviews", OURS + "/kubeconfigs", OURS + "/tokenrequests", OURS + "/accessreviews",
}  # fmt: skip
"""What is about the caller alone."""

ASKED = {"/v1/identity-providers/{name}/test", "/v1/scim/{provider}/v2/{path:.*}"}
"""What the owner alone decides about, who does not run here; its own tests say who may."""


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        yield running


def fill(path: str, plural: str = "clusters", name: str = "c1") -> str:
    """An address that the pattern matches, naming something that is there and is somebody else's."""
    values = {
        "{plural}": plural, "{name}": name, "{provider}": "corp", "{subresource}": "status", "{group}": "management.herdsman.dev", "{version}": "v1", "{file:.*}": "index.html", "{path:.*}": "Users",
        "{version:v1|v1beta1}": "v1", "{token}": "hmr_a_b", "{namespace}": "default",
    }  # fmt: skip
    for pattern, value in values.items():
        path = path.replace(pattern, value)
    assert "{" not in path, path
    return path


async def ask(hub, method, path, **more):
    body = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "c1"}, "spec": {}}
    async with hub.request(method, path, body if method in ("POST", "PUT", "PATCH") else None, **more) as response:
        return response.status, await response.text()


def table(hub):
    return [(route.method, route.path) for route in render_routes(hub.state)]


async def test_cve_2025_62714_every_route_that_is_not_public_is_401_without_a_name(hub):
    routes = table(hub)
    assert set(routes) >= PUBLIC, "a public route is gone: take it off the list"
    for method, path in routes:
        status, text = await ask(hub, method, fill(path), by=None)
        if (method, path) in PUBLIC:
            continue
        assert status == 401, (method, path, text)
        assert json.loads(text)["kind"] == "Status"
        for envelope in ("x", "a.b", "a.b.c", " "):
            status, _ = await ask(hub, method, fill(path), by=None, headers={"Herdsman-Identity": envelope})
            assert status == 401, (method, path, envelope)


async def test_cve_2025_62714_what_needs_no_name_is_on_the_list(hub):
    open_to_all = {(route.method, route.path) for route in render_routes(hub.state) if route.needs != "identity"}
    assert open_to_all == PUBLIC


async def test_cve_2024_46528_a_stranger_gets_nothing_of_others_on_any_route(hub):
    """bob has signed in and has no role; ann owns c1."""
    names = {"users": "ann", "clusters": "c1", "roletemplates": "cluster-owner"}
    for method, path in table(hub):
        if (method, path) in PUBLIC or path in FOR_ALL | OWN | ASKED:
            continue
        for rtype in RESOURCE_TYPES:
            filled = fill(path, rtype.plural, names.get(rtype.plural, "something"))
            status, text = await ask(hub, method, filled, by="bob")
            if method == "GET" and path == OURS + "/{plural}":
                items = json.loads(text).get("items", [])
                own = [
                    item["metadata"]["name"]
                    for item in items
                    if item["metadata"]["name"] not in ("bob", "cluster-owner", "admin")
                ]
                assert status in (200, 403), (filled, text)
                assert not own, (filled, own)
            elif method == "GET" and status == 200:
                # Role templates are no secret: people ask for them by name.
                assert rtype.plural == "roletemplates", (filled, text)
            elif method == "DELETE" and path == OURS + "/{plural}":
                assert status in (200, 403, 404, 405), (filled, text)
            else:
                assert status in (400, 403, 404, 405, 409, 415, 422), (method, filled, status, text)
            if "{" not in path:
                break
    for kind, name in (("users", "ann"), ("clusters", "c1"), ("clusters", "c2"), ("roletemplates", "cluster-owner")):
        assert (await ask(hub, "GET", f"{OURS}/{kind}/{name}", by="root"))[0] == 200, "a stranger removed it"


async def test_who_must_change_a_password_first_gets_nothing_else_on_any_route(hub):
    """root may everything, but for this."""
    helping = {
        ("GET", "/v1/session"), ("POST", "/v1/logout"), ("POST", "/v1/password"), ("POST", "/v1/second-factor"), ("POST", "/v1/second-factor/confirm"),
    }  # fmt: skip
    for owes in (["password"], ["secondFactor"], ["password", "secondFactor"]):
        root = make_principal("root").model_copy(update={"owes": owes})
        for method, path in table(hub):
            status, text = await ask(hub, method, fill(path), by=root)
            if (method, path) in PUBLIC:
                nobody, _ = await ask(hub, method, fill(path), by=None)
                assert status == nobody, (method, path)
            elif (method, path) in helping:
                assert "nothing else is allowed" not in text, (method, path)
            else:
                assert status == 403, (method, path, text)
                assert "nothing else is allowed" in json.loads(text)["message"], (method, path)
        status, shown = await hub.call("GET", "/v1/session", by=root)
        assert status == 200
        assert (shown["must_change_password"], shown["must_set_second_factor"]) == ("password" in owes, "secondFactor" in owes)  # fmt: skip
    assert not [
        asked for asked in hub.asked if getattr(asked, "identity", "") and "write" in type(asked).__name__.lower()
    ]


async def test_cve_2024_46528_nothing_there_and_not_yours_are_told_alike(hub):
    for plural in ("clusters", "users"):
        one = await ask(hub, "GET", f"{OURS}/{plural}/{'c2' if plural == 'clusters' else 'ann'}", by="bob")
        other = await ask(hub, "GET", f"{OURS}/{plural}/nothing", by="bob")
        assert one[0] == other[0] == 404
        assert one[1].replace("c2", "nothing").replace('"ann', '"nothing').replace("ann\\", "nothing\\") == other[1]
