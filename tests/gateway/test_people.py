"""Reviews, kubeconfigs, registration, sign-in and probes over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import yaml

from libs.common import errors
from libs.common.access.token_text import make_token_text
from libs.common.apiserver.protobuf import MAGIC, encode_field
from libs.common.contracts import messages as m
from libs.common.contracts import methods
from libs.common.observe import client
from tests.apiserver.support import make_principal
from tests.gateway.support import OURS, Hub, real_monotonic

THEN = datetime(2026, 2, 2, tzinfo=UTC)
ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic, login_per_minute=3).running() as running:
        yield running


async def may(hub, by, verb, resource, name="", group="management.herdsman.dev", sub=""):
    attributes = {"verb": verb, "group": group, "resource": resource, "name": name, "subresource": sub}
    status, document = await hub.call("POST", ACCESS, {"spec": {"resourceAttributes": attributes}}, by=by)
    assert status == 201
    return document["status"]["allowed"]


async def test_access_reviews_say_what_the_routes_do(hub):
    assert await may(hub, "root", "create", "users")
    assert not await may(hub, "bob", "create", "users")
    assert await may(hub, "ann", "update", "clusters", "c1")
    assert not await may(hub, "ann", "update", "clusters", "c2")
    assert not await may(hub, "ann", "update", "clusters")
    assert await may(hub, "ann", "list", "clusters")
    assert await may(hub, "bob", "create", "kubeconfigs")
    assert await may(hub, "bob", "create", "tokenrequests")
    assert not await may(hub, make_principal("bob", read_only=True), "create", "tokenrequests")
    assert not await may(hub, "bob", "list", "nodes")
    assert not await may(hub, "root", "list", "pods", group="")
    assert await may(hub, "bob", "list", "namespaces", group="")
    assert not await may(hub, make_principal("root", read_only=True), "create", "users")
    assert not await may(hub, make_principal("ghost"), "create", "kubeconfigs")
    for path, expected in (("/healthz", True), ("/apis/x", True), ("/metrics", False), ("/apisx", False)):
        _, document = await hub.call(
            "POST", ACCESS, {"spec": {"nonResourceAttributes": {"verb": "get", "path": path}}}, by="bob"
        )
        assert document["status"]["allowed"] is expected
    for bad in (
        {},
        {"spec": {}},
        {"spec": {"resourceAttributes": [1]}},
        {"kind": "Odd"},
        {"spec": {"resourceAttributes": {"verb": 1}}},
    ):
        assert (await hub.call("POST", ACCESS, bad))[0] == 400


async def test_reviews_arrive_as_protobuf_too(hub):
    attributes = encode_field(2, "create") + encode_field(3, "management.herdsman.dev") + encode_field(5, "users")
    type_meta = encode_field(1, "authorization.k8s.io/v1") + encode_field(2, "SelfSubjectAccessReview")
    data = MAGIC + encode_field(1, type_meta) + encode_field(2, encode_field(2, encode_field(1, attributes)))
    async with hub.request(
        "POST", ACCESS, data=data, headers={"Content-Type": "application/vnd.kubernetes.protobuf"}
    ) as response:
        assert (await response.json())["status"]["allowed"] is True


async def test_rules_and_who_am_i(hub):
    _, document = await hub.call(
        "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {}}, by="bob"
    )
    assert {
        "verbs": ["create"],
        "apiGroups": ["management.herdsman.dev"],
        "resources": ["kubeconfigs", "tokenrequests", "accessreviews"],
    } in document["status"]["resourceRules"]
    for version in ("v1", "v1beta1"):
        path = f"/apis/authentication.k8s.io/{version}/selfsubjectreviews"
        _, document = await hub.call("POST", path, {}, by=make_principal("ann", token="t1"))
        assert document["apiVersion"] == f"authentication.k8s.io/{version}"
        assert document["status"]["userInfo"]["username"] == "ann"
        assert document["status"]["userInfo"]["extra"]["management.herdsman.dev/token"] == ["t1"]


async def test_a_kubeconfig_has_the_clusters_that_its_owner_sees(hub):
    issued = m.IssuedToken(token="hm_t_s", name="t", user="ann", expires_at=THEN)
    await hub.serve(methods.ISSUE_TOKEN, lambda _request: issued)
    status, document = await hub.call("POST", f"{OURS}/kubeconfigs", {"spec": {}}, by="ann")
    assert (status, document["status"]["tokenName"], document["status"]["expiresAt"]) == (
        201,
        "t",
        "2026-02-02T00:00:00Z",
    )
    config = yaml.safe_load(document["status"]["kubeconfig"])
    assert [c["name"] for c in config["contexts"]] == ["herdsman", "c1"]
    assert [c["cluster"]["server"] for c in config["clusters"]] == [
        "https://hub.example:8443",
        "https://hub.example:8443/k8s/clusters/c1",
    ]
    assert config["users"][0]["user"]["token"] == "hm_t_s"
    _, document = await hub.call(
        "POST", f"{OURS}/kubeconfigs", {"spec": {"clusters": ["c1"], "ttlSeconds": 60}}, by="ann"
    )
    assert [c["name"] for c in yaml.safe_load(document["status"]["kubeconfig"])["contexts"]] == ["c1"]
    assert hub.asked[-1].clusters == ["c1"]
    assert (await hub.call("POST", f"{OURS}/kubeconfigs", {"spec": {"clusters": ["c2"]}}, by="ann"))[0] == 404
    assert (await hub.call("POST", f"{OURS}/kubeconfigs", {"spec": {"ttlSeconds": "x"}}, by="ann"))[0] == 422
    assert (await hub.call("POST", f"{OURS}/kubeconfigs?fieldValidation=Strict", {"spec": {"odd": 1}}, by="ann"))[
        0
    ] == 400
    asked = len(hub.asked)
    status, document = await hub.call("POST", f"{OURS}/kubeconfigs", {"spec": {"withoutToken": True}}, by="ann")
    assert (status, document["status"]["tokenName"], len(hub.asked)) == (201, "", asked)
    assert yaml.safe_load(document["status"]["kubeconfig"])["users"] == [{"name": "herdsman-ann", "user": {}}]
    assert (await hub.call("POST", f"{OURS}/kubeconfigs?dryRun=All", {"spec": {}}, by="ann"))[0] == 201
    assert len(hub.asked) == asked
    assert (await hub.call("GET", f"{OURS}/kubeconfigs"))[0] == 404


async def test_a_token_request_is_answered_with_a_token_for_scripts(hub):
    issued = m.IssuedToken(token="hm_t_s", name="t", user="ann", expires_at=THEN)
    await hub.serve(methods.ISSUE_TOKEN, lambda _request: issued)
    spec = {"description": "ci", "clusters": ["c1"], "readOnly": True, "ttlSeconds": 3600}
    async with hub.request("POST", f"{OURS}/tokenrequests", {"spec": spec}, by="ann") as response:
        assert (response.status, response.headers["Cache-Control"]) == (201, "no-store")
        document = await response.json()
    assert document["kind"] == "TokenRequest"
    assert document["status"] == {"token": "hm_t_s", "name": "t", "expiresAt": "2026-02-02T00:00:00Z"}
    asked = hub.asked[-1]
    assert (asked.purpose, asked.description, asked.clusters, asked.read_only, asked.ttl_s) == (
        "api", "ci", ["c1"], True, 3600,
    )  # fmt: skip
    assert (await hub.call("POST", f"{OURS}/tokenrequests", {"spec": {"purpose": "exec"}}, by="ann"))[0] == 201
    assert hub.asked[-1].purpose == "exec"
    assert (await hub.call("POST", f"{OURS}/tokenrequests", {"spec": {"purpose": "login"}}, by="ann"))[0] == 422
    number = len(hub.asked)
    assert (await hub.call("POST", f"{OURS}/tokenrequests", {"spec": {"clusters": ["c2"]}}, by="ann"))[0] == 404
    assert (await hub.call("POST", f"{OURS}/tokenrequests", {"spec": {"ttlSeconds": 1}}, by="ann"))[0] == 422
    assert (await hub.call("POST", f"{OURS}/tokenrequests", {}, by=make_principal("ann", read_only=True)))[0] == 403
    _, document = await hub.call("POST", f"{OURS}/tokenrequests?dryRun=All", {}, by="ann")
    assert document["status"] == {"token": "", "name": ""}
    assert len(hub.asked) == number
    assert (await hub.call("GET", f"{OURS}/tokenrequests"))[0] == 404
    _, found = await hub.call("GET", OURS)
    assert {"tokenrequests", "kubeconfigs"} <= {r["name"] for r in found["resources"] if r["verbs"] == ["create"]}


async def test_a_registration_says_how_to_bring_the_cluster_in_and_its_manifest_is_complete(hub):
    issued = m.IssuedRegistration(token="reg/1", cluster="c1", cluster_uid="u", expires_at=THEN)
    await hub.serve(methods.ISSUE_REGISTRATION, lambda _request: issued)
    await hub.serve(methods.CHECK_REGISTRATION, lambda _request: issued)
    status, document = await hub.call("POST", f"{OURS}/clusters/c1/registration", {})
    assert status == 201
    assert document["status"]["token"] == "reg/1"
    assert document["status"]["manifestURL"] == "https://hub.example:8443/v1/import/reg%2F1.yaml"
    assert "kubectl apply -f -" in document["status"]["command"]
    async with hub.request("GET", "/v1/import/reg1.yaml", by=None) as response:
        assert response.status == 200
        objects = list(yaml.safe_load_all(await response.text()))
    assert [o["kind"] for o in objects] == [
        "Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Secret", "ConfigMap", "Deployment",
    ]  # fmt: skip
    assert all(o["metadata"]["labels"]["management.herdsman.dev/part"] == "agent" for o in objects)
    assert objects[6]["stringData"] == {"token": "reg1"}
    assert objects[7]["data"]["ca.crt"] == hub.state.ca
    pod = objects[8]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["imagePullPolicy"] == "IfNotPresent"


async def test_agents_register_without_an_envelope(hub):
    credential = m.AgentCredential(cluster="c1", cluster_uid="u", jwt="j", expires_at=THEN, renew_after_s=60)
    await hub.serve(methods.REGISTER_AGENT, lambda _request: credential)
    status, document = await hub.call("POST", "/v1/agents/register", {"token": "t", "public_key": "k"}, by=None)
    assert (status, document["jwt"], document["cluster"]) == (200, "j", "c1")
    assert (await hub.call("POST", "/v1/agents/register", {"token": "t"}, by=None))[0] == 400


async def test_who_calls_and_from_where_goes_along_to_the_services_that_answer(hub):
    seen = []

    async def log_in(message):
        seen.append(client.parse(message.headers))
        return m.IssuedToken(token="hm_a_b", name="a", user="ann", expires_at=THEN)

    await hub.stack.enter_async_context(hub.bus.serve(methods.LOGIN.subject, log_in, queue="identity"))
    body = {"user": "ann", "password": "right"}
    for headers in (
        {"X-Forwarded-For": "10.0.0.1", "User-Agent": "one/1"},
        {"X-Forwarded-For": "10.0.0.2", "User-Agent": "x" * 999},
    ):
        assert (await hub.call("POST", "/v1/login", body, by=None, headers=headers))[0] == 200
    assert seen == [client.Client("10.0.0.1", "one/1"), client.Client("10.0.0.2", "x" * client.MAX_AGENT)]


async def test_sign_in_passes_through_and_is_limited_by_address_and_user(hub):
    def login(request):
        if request.password != "right":
            raise errors.Unauthenticated("user name or password is wrong")
        return m.IssuedToken(token="hm_a_b", name="a", user=request.user, expires_at=THEN)

    await hub.serve(methods.LOGIN, login)
    headers = {"X-Forwarded-For": "10.0.0.1"}
    body = {"user": "ann", "password": "right"}
    status, document = await hub.call("POST", "/v1/login", body, by=None, headers=headers)
    assert (status, document["token"]) == (200, "hm_a_b")
    assert hub.asked[-1].client_address == "10.0.0.1"
    for name, expected in (("ann", 401), ("ANN", 401), ("Ann", 429)):
        status, document = await hub.call(
            "POST", "/v1/login", {"user": name, "password": "wrong"}, by=None, headers=headers
        )
        assert status == expected
    assert document["details"]["retryAfterSeconds"] == 20
    assert (await hub.call("POST", "/v1/login", body, by=None, headers={"X-Forwarded-For": "10.0.0.2"}))[0] == 200
    status, document = await hub.call(
        "POST",
        "/v1/login",
        {"user": "ann", "password": ["secret-value"]},
        by=None,
        headers={"X-Forwarded-For": "10.0.0.3"},
    )
    assert status == 400
    assert "secret-value" not in str(document)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}, 200),
        ({"Content-Type": "application/json"}, 200),
        ({"Sec-Fetch-Site": "same-site", "Content-Type": "application/json"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}, 403),
        ({"Sec-Fetch-Site": "none", "Content-Type": "application/json"}, 403),
        ({"Content-Type": "application/yaml"}, 403),
    ],
)
async def test_no_page_of_somebody_else_signs_a_browser_in(hub, headers, expected):
    token = make_token_text()
    issued = m.IssuedToken(token=token.reveal(), name=token.name, user="ann", expires_at=THEN)
    await hub.serve(methods.LOGIN, lambda _request: issued)
    body = {"user": "ann", "password": "right", "session": True}
    status, _ = await hub.call("POST", "/v1/login", body, by=None, headers=headers)
    assert status == expected
    without = await hub.call("POST", "/v1/login", {"user": "ann", "password": "right"}, by=None)
    assert without[0] == 200


async def test_sign_out_and_password_need_an_envelope_and_work_for_the_caller(hub):
    await hub.serve(methods.REVOKE_TOKEN, lambda _request: m.Empty())
    await hub.serve(methods.CHANGE_PASSWORD, lambda _request: m.Empty())
    assert (await hub.call("POST", "/v1/logout", by=None))[0] == 401
    assert (await hub.call("POST", "/v1/password", {"new_password": "x"}, by=None))[0] == 401
    assert await hub.call("POST", "/v1/logout") == (200, {})
    principal = make_principal("ann")
    assert await hub.call("POST", "/v1/password", {"current_password": "a", "new_password": "b"}, by=principal) == (
        200,
        {},
    )
    assert (hub.asked[-1].user, hub.asked[-1].new_password) == ("ann", "b")


async def test_ready_names_what_is_missing(hub, monkeypatch):
    async with hub.request("GET", "/readyz", by=None) as response:
        assert (response.status, await response.text()) == (200, "ok")
    async with hub.request("GET", "/readyz?verbose", by=None) as response:
        assert "[+]cluster_controller ok" in await response.text()
    hub.waiting.append("informer users")
    async with hub.request("GET", "/readyz", by=None) as response:
        assert response.status == 503
        assert "[-]gateway failed: waiting for informer users" in await response.text()
    hub.waiting.clear()
    hub.bus.disconnect()
    async with hub.request("GET", "/readyz", by=None) as response:
        assert response.status == 503
        assert "[-]identity failed: waiting for an answer of the service" in await response.text()
    async with hub.request("GET", "/livez", by=None) as response:
        assert response.status == 200


async def test_documents_are_cached_by_etag(hub):
    for path in ("/apis", "/openapi/v3", "/openapi/v2"):
        async with hub.request("GET", path) as response:
            etag = response.headers["ETag"]
            assert response.headers["Vary"] == "Accept"
        async with hub.request("GET", path, headers={"If-None-Match": etag}) as response:
            assert response.status == 304
    _, index = await hub.call("GET", "/openapi/v3")
    for entry in index["paths"].values():
        async with hub.request("GET", entry["serverRelativeURL"]) as response:
            assert response.status == 200
            assert "immutable" in response.headers["Cache-Control"]
    accept = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"}
    async with hub.request("GET", "/apis", headers=accept) as response:
        assert (
            response.headers["Content-Type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        )
        names = [i["metadata"]["name"] for i in (await response.json())["items"]]
        assert len(names) == len(set(names))
    assert (await hub.call("GET", "/version", by=None))[1]["major"] == "1"
    assert (await hub.call("GET", "/apis/nope/v1"))[0] == 404


async def test_the_core_group_is_empty_but_there(hub):
    assert (await hub.call("GET", "/api/v1/events"))[1]["items"] == []
    assert (await hub.call("GET", "/api/v1/namespaces/x/events"))[1]["kind"] == "EventList"
    assert (await hub.call("GET", "/api/v1/namespaces/x"))[0] == 404
    assert (await hub.call("GET", "/api/v1/pods"))[0] == 404
    async with hub.request("GET", "/api/v1/namespaces?watch=1&timeoutSeconds=1") as response:
        assert (await response.read()) == b""
