"""Reads, writes and watches over HTTP, as different people."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from libs.common.apiserver.watch import WatchCache
from libs.common.audit.request import parse_request
from libs.common.resources.identity import Token
from services.gateway import bodies
from tests.apiserver.support import make_binding, make_cluster, make_principal, make_user
from tests.gateway.support import OURS, Hub, real_monotonic


@pytest.fixture
async def hub(clock, tmp_path):
    async with Hub(clock, tmp_path, real_monotonic).running() as running:
        yield running


def names(document):
    return [item["metadata"]["name"] for item in document["items"]]


class Watching:
    """One open watch, read event by event."""

    def __init__(self, response):
        self.response = response

    async def next(self, timeout_s=5.0):
        line = await asyncio.wait_for(self.response.content.readline(), timeout_s)
        return json.loads(line) if line else None

    async def take(self, count):
        return [await self.next() for _ in range(count)]


async def test_nobody_gets_in_without_an_envelope_and_errors_are_status_objects(hub):
    for path in (f"{OURS}/users", "/apis", "/api", "/openapi/v3", "/api/v1/namespaces"):
        status, document = await hub.call("GET", path, by=None)
        assert (status, document["kind"], document["reason"]) == (401, "Status", "Unauthorized")
    status, document = await hub.call("GET", f"{OURS}/users", by=None, headers={"Herdsman-Identity": "forged.x"})
    assert (status, document["reason"]) == (401, "Unauthorized")
    status, document = await hub.call("GET", "/nowhere")
    assert (status, document["reason"]) == (404, "NotFound")
    status, document = await hub.call("PUT", f"{OURS}/users", {})
    assert (status, document["reason"]) == (405, "MethodNotAllowed")


async def test_lists_hold_what_the_caller_may_see_and_nothing_else(hub):
    assert names((await hub.call("GET", f"{OURS}/clusters"))[1]) == ["c1", "c2"]
    assert names((await hub.call("GET", f"{OURS}/clusters", by="ann"))[1]) == ["c1"]
    assert names((await hub.call("GET", f"{OURS}/clusters", by="bob"))[1]) == []
    assert names((await hub.call("GET", f"{OURS}/users", by="bob"))[1]) == ["bob"]
    assert (await hub.call("GET", f"{OURS}/nodes", by="bob"))[0] == 403
    for name in ("c2", "c9"):
        status, document = await hub.call("GET", f"{OURS}/clusters/{name}", by="ann")
        assert (status, document["message"]) == (404, f'clusters.management.herdsman.dev "{name}" not found')
    assert (await hub.call("GET", f"{OURS}/clusters/c1", by="ann"))[0] == 200


async def test_what_was_written_is_read_at_once(hub):
    for number in range(20):
        body = {"metadata": {"name": f"u{number}"}, "spec": {"displayName": str(number)}}
        status, created = await hub.call("POST", f"{OURS}/users", body)
        assert status == 201
        status, read = await hub.call("GET", f"{OURS}/users/u{number}")
        assert (status, read) == (200, created)
    status, document = await hub.call("DELETE", f"{OURS}/users/u3")
    assert (status, document["status"], document["details"]["name"]) == (200, "Success", "u3")
    assert (await hub.call("GET", f"{OURS}/users/u3"))[0] == 404


async def test_pages_show_one_moment_although_somebody_writes_between_them(hub):
    for number in range(25):
        await hub.put(make_user(f"p{number:02}"))
    status, first = await hub.call("GET", f"{OURS}/users?limit=10")
    assert len(first["items"]) == 10
    assert first["metadata"]["remainingItemCount"] == 18
    await hub.remove("users", "p20")
    await hub.put(make_user("p21", enabled=False))
    await hub.put(make_user("zz-new"))
    seen, token = names(first), first["metadata"]["continue"]
    while token:
        status, page = await hub.call("GET", f"{OURS}/users?limit=10&continue={token}")
        assert status == 200
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        seen += names(page)
        if "p21" in names(page):
            (item,) = [i for i in page["items"] if i["metadata"]["name"] == "p21"]
            assert item["spec"]["enabled"] is True
        token = page["metadata"].get("continue")
    assert seen == sorted(["root", "ann", "bob", *(f"p{n:02}" for n in range(25))])


async def test_a_continue_token_that_is_too_old_is_410_and_nonsense_is_400(hub):
    await hub.call("GET", f"{OURS}/users")
    cache = hub.caches["users"]
    _, first = await hub.call("GET", f"{OURS}/users?limit=1")
    cache._max_events = 2
    for number in range(5):
        await hub.put(make_user(f"q{number}"))
    status, document = await hub.call("GET", f"{OURS}/users?limit=1&continue={first['metadata']['continue']}")
    assert (status, document["reason"]) == (410, "Expired")
    for bad in ("x", "eyJ2IjoxfQ", "%20"):
        assert (await hub.call("GET", f"{OURS}/users?limit=1&continue={bad}"))[0] == 400
    assert (await hub.call("GET", f"{OURS}/users?limit=-1"))[0] == 400


async def test_exact_and_future_versions(hub):
    _, before = await hub.call("GET", f"{OURS}/users")
    version = before["metadata"]["resourceVersion"]
    await hub.put(make_user("later"))
    _, exact = await hub.call("GET", f"{OURS}/users?resourceVersion={version}&resourceVersionMatch=Exact")
    assert names(exact) == names(before)
    status, document = await hub.call("GET", f"{OURS}/users?resourceVersion=99999")
    assert (status, document["reason"]) == (504, "Timeout")
    assert "Too large resource version" in document["message"]


async def test_selectors_filter_and_unknown_fields_are_400(hub):
    await hub.put(make_user("off", enabled=False))
    assert names((await hub.call("GET", f"{OURS}/users?fieldSelector=spec.enabled%3Dfalse"))[1]) == ["off"]
    assert names((await hub.call("GET", f"{OURS}/users?fieldSelector=metadata.name%3Dbob"))[1]) == ["bob"]
    status, document = await hub.call("GET", f"{OURS}/users?fieldSelector=spec.displayName%3Dx")
    assert (status, document["reason"]) == (400, "BadRequest")
    assert (await hub.call("GET", f"{OURS}/users?labelSelector=a%3D%3D%3Db"))[0] == 400


async def test_tables_and_metadata_only(hub):
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
    _, table = await hub.call("GET", f"{OURS}/users", headers=accept)
    assert [c["name"] for c in table["columnDefinitions"]] == [
        "Name",
        "Display Name",
        "Enabled",
        "Last Login",
        "Last Activity",
        "Inactive",
        "Principal",
        "Age",
    ]
    assert [row["cells"][0] for row in table["rows"]] == ["ann", "bob", "root"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    _, bare = await hub.call("GET", f"{OURS}/users?includeObject=None", headers=accept)
    assert "object" not in bare["rows"][0]
    accept = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
    _, partial = await hub.call("GET", f"{OURS}/users", headers=accept)
    assert partial["kind"] == "PartialObjectMetadataList"
    assert "spec" not in partial["items"][0]
    assert (await hub.call("GET", f"{OURS}/users", headers={"Accept": "text/html"}))[0] == 406


@pytest.mark.parametrize("path", [f"{OURS}/users", f"{OURS}/auditevents", "/api/v1/namespaces"])
@pytest.mark.parametrize("no", ["watch", "watch=", "watch=f", "watch=F"])
async def test_what_the_audit_log_takes_for_a_watch_is_no_list(hub, path, no):
    assert parse_request("GET", f"{path}?{no}").verb == "watch"
    assert (await hub.call("GET", f"{path}?{no}"))[0] == 400


async def test_a_watch_begins_where_the_list_ended_and_tells_what_enters_and_leaves_the_selection(hub):
    _, listed = await hub.call("GET", f"{OURS}/users")
    path = f"{OURS}/users?watch=true&fieldSelector=spec.enabled%3Dtrue&resourceVersion={listed['metadata']['resourceVersion']}"
    async with hub.request("GET", path) as response:
        watch = Watching(response)
        await hub.put(make_user("new"))
        await hub.put(make_user("new", enabled=False))
        await hub.put(make_user("other", enabled=False))
        await hub.put(make_user("new"))
        await hub.remove("users", "new")
        events = await watch.take(4)
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("ADDED", "new"), ("DELETED", "new"), ("ADDED", "new"), ("DELETED", "new"),
    ]  # fmt: skip
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(versions)


async def test_a_streaming_list_ends_with_its_bookmark_and_is_refused_when_half_asked_for(hub):
    asked = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with hub.request("GET", f"{OURS}/clusters?{asked}", by="ann") as response:
        events = await Watching(response).take(2)
    assert [(e["type"], e["object"]["metadata"].get("name")) for e in events] == [("ADDED", "c1"), ("BOOKMARK", None)]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    for asked in (
        "sendInitialEvents=true",
        "resourceVersionMatch=NotOlderThan",
        "sendInitialEvents=true&resourceVersionMatch=Exact",
    ):
        status, document = await hub.call("GET", f"{OURS}/clusters?watch=true&{asked}")
        assert (status, document["reason"]) == (422, "Invalid")


async def test_a_version_that_is_too_old_ends_the_watch_with_410(hub):
    # Made late: it has heard no listing and knows nothing of what was before.
    hub.caches["users"].close()
    hub.caches["users"] = WatchCache(hub.informers["users"])
    async with hub.request("GET", f"{OURS}/users?watch=1&resourceVersion=1") as response:
        event = await Watching(response).next()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await Watching(response).next() is None


async def test_a_watch_shows_only_what_its_caller_may_see_and_ends_when_a_right_changes(hub):
    _, listed = await hub.call("GET", f"{OURS}/clusters", by="ann")
    version = listed["metadata"]["resourceVersion"]
    async with hub.request("GET", f"{OURS}/clusters?watch=true&resourceVersion={version}", by="ann") as response:
        watch = Watching(response)
        for name in ("c2", "c1"):
            cluster = make_cluster(name)
            cluster.spec.display_name = "changed"
            await hub.put(cluster)
        assert (await watch.next())["object"]["metadata"]["name"] == "c1"
        await hub.remove("roletemplatebindings", "ann-cluster-owner")
        event = await watch.next()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert await watch.next() is None
    assert names((await hub.call("GET", f"{OURS}/clusters", by="ann"))[1]) == []


async def test_a_grant_ends_the_watch_too_so_that_the_client_lists_what_it_sees_now(hub):
    _, listed = await hub.call("GET", f"{OURS}/clusters", by="bob")
    async with hub.request(
        "GET", f"{OURS}/clusters?watch=true&resourceVersion={listed['metadata']['resourceVersion']}", by="bob"
    ) as response:
        await hub.put(make_binding("bob", "cluster-owner", {"cluster": "c2"}))
        assert (await Watching(response).next())["object"]["code"] == 410
    assert names((await hub.call("GET", f"{OURS}/clusters", by="bob"))[1]) == ["c2"]


async def test_a_deleted_token_ends_its_watches(hub):
    spec = {"user": "root", "userUid": "uid-root", "expiresAt": "2026-02-02T00:00:00Z"}
    await hub.put(Token.model_validate({"metadata": {"name": "t1", "uid": "t1"}, "spec": spec}))
    async with hub.request("GET", f"{OURS}/users?watch=true", by=make_principal("root", token="t1")) as response:
        watch = Watching(response)
        await watch.take(3)
        await hub.remove("tokens", "t1")
        event = await watch.next()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 401)


async def test_a_watch_ends_in_time(hub):
    hub_path = f"{OURS}/users?watch=true&timeoutSeconds=1"
    async with hub.request("GET", hub_path) as response:
        watch = Watching(response)
        await watch.take(3)
        assert await watch.next() is None


async def test_when_the_bucket_is_made_anew_watches_are_told_to_list_again(hub):
    _, listed = await hub.call("GET", f"{OURS}/projects")
    async with hub.request(
        "GET", f"{OURS}/projects?watch=true&resourceVersion={listed['metadata']['resourceVersion']}"
    ) as response:
        await hub.call("POST", f"{OURS}/projects", {"metadata": {"name": "a"}})
        watch = Watching(response)
        assert (await watch.next())["type"] == "ADDED"
        await hub.call("POST", f"{OURS}/projects", {"metadata": {"name": "b"}})
        await watch.next()
        hub.stores["project"].recreate()
        await hub.call("POST", f"{OURS}/projects", {"metadata": {"name": "c"}})
        events = [await watch.next()]
        while events[-1] is not None and events[-1]["type"] != "ERROR":
            events.append(await watch.next())
        assert events[-1]["object"]["code"] == 410


async def test_limits_of_bodies(hub):
    async with hub.request(
        "POST", f"{OURS}/users", data=io.BytesIO(b"x" * (1536 * 1024 + 1)), headers={"Content-Type": "application/json"}
    ) as r:
        assert (r.status, (await r.json())["reason"]) == (413, "RequestEntityTooLarge")
    bad = {
        b"{": "not valid JSON", b"[" * 100_000 + b"]" * 100_000: "nested deeper", b'{"a":' * 70 + b"1" + b"}" * 70: "nested deeper",
        b'{"a": NaN}': "not valid JSON", b'{"a": 123456789012345678901}': "64-bit", b'{"a": "\\ud800"}': "surrogate",
        b"\xff": "not valid JSON", b"[]": "must be a JSON object",
    }  # fmt: skip
    for data, words in bad.items():
        async with hub.request(
            "POST", f"{OURS}/users", data=data, headers={"Content-Type": "application/json"}
        ) as response:
            document = await response.json()
            assert (response.status, words in document["message"]) == (400, True), document
    async with hub.request("POST", f"{OURS}/users", data=b"<x/>", headers={"Content-Type": "text/xml"}) as response:
        assert response.status == 415


async def test_yaml_bodies_are_read_without_their_dangers(hub):
    text = b"kind: User\nmetadata: {name: yam}\nspec: {displayName: '2026-01-01'}\n"
    headers = {"Content-Type": "application/yaml"}
    async with hub.request("POST", f"{OURS}/users", data=text, headers=headers) as response:
        assert response.status == 201
    bomb = b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n"
    async with hub.request("POST", f"{OURS}/users", data=bomb, headers=headers) as response:
        assert response.status == 400
        assert "aliases" in (await response.json())["message"]


async def test_much_yaml_is_refused_and_taken_as_json(hub):
    long = "x" * 140_000
    headers = {"Content-Type": "application/yaml"}
    text = f"kind: User\nmetadata: {{name: yam, annotations: {{a: {long}}}}}\nspec: {{}}\n".encode()
    async with hub.request("POST", f"{OURS}/users", data=text, headers=headers) as response:
        assert response.status == 413
        assert "JSON" in (await response.json())["message"]
    as_json = json.dumps({"kind": "User", "metadata": {"name": "yam", "annotations": {"a": long}}, "spec": {}})
    async with hub.request("POST", f"{OURS}/users", data=as_json, headers=headers) as response:
        assert response.status == 201


def test_a_body_of_very_many_keys_is_read_in_one_pass():
    keys = [f'"k{number % 100_000}":1' for number in range(100_001)]
    # Where each key is counted by itself, this does not end.
    assert bodies.parse_json(f"{{{','.join(keys)}}}".encode()).duplicates == ["k0"]


async def test_duplicate_keys_are_refused_or_told(hub):
    data = b'{"metadata":{"name":"dup"},"spec":{"displayName":"a","displayName":"b"}}'
    headers = {"Content-Type": "application/json"}
    async with hub.request("POST", f"{OURS}/users?fieldValidation=Strict", data=data, headers=headers) as response:
        document = await response.json()
        assert response.status == 400
        assert 'strict decoding error: duplicate field "spec.displayName"' in document["message"]
    async with hub.request("POST", f"{OURS}/users", data=data, headers=headers) as response:
        assert response.status == 201
        assert response.headers.getall("Warning") == ['299 - "duplicate field \\"spec.displayName\\""']
        assert (await response.json())["spec"]["displayName"] == "b"


async def test_options_of_writes_are_checked(hub):
    for query in ("dryRun=yes", "fieldValidation=Odd", "force=true"):
        status, document = await hub.call(
            "PATCH", f"{OURS}/users/bob?{query}", {"spec": {}}, headers={"Content-Type": "application/merge-patch+json"}
        )
        assert (status, document["reason"]) == (422, "Invalid"), query
    status, _ = await hub.call(
        "PATCH", f"{OURS}/users/bob", {}, headers={"Content-Type": "application/apply-patch+yaml"}
    )
    assert status == 422
    status, document = await hub.call(
        "PATCH", f"{OURS}/users/bob", {}, headers={"Content-Type": "application/strategic-merge-patch+json"}
    )
    assert (status, document["reason"]) == (415, "UnsupportedMediaType")


async def test_delete_collection_deletes_what_is_selected_and_seen(hub):
    for name, label in (("d1", "x"), ("d2", "x"), ("d3", "y")):
        user = make_user(name)
        user.metadata.labels = {"a": label}
        await hub.put(user)
    status, document = await hub.call("DELETE", f"{OURS}/users?labelSelector=a%3Dx")
    assert (status, names(document)) == (200, ["d1", "d2"])
    assert names((await hub.call("GET", f"{OURS}/users"))[1]) == ["ann", "bob", "d3", "root"]
    assert (await hub.call("DELETE", f"{OURS}/users", by="bob"))[0] == 403


async def test_a_service_that_is_away_is_503_without_retry_after(hub):
    hub.bus.disconnect()
    async with hub.request("POST", f"{OURS}/users", {"metadata": {"name": "x"}}) as response:
        assert response.status == 503
        assert "Retry-After" not in response.headers
    hub.bus.reconnect()


async def test_every_answer_carries_the_request_id(hub):
    async with hub.request("GET", f"{OURS}/users", headers={"X-Request-Id": "abc-1"}) as response:
        assert response.headers["X-Request-Id"] == "abc-1"
    async with hub.request("GET", "/nowhere", headers={"X-Request-Id": "bad id\u00e9"}) as response:
        assert len(response.headers["X-Request-Id"]) == 16


async def test_tokens_for_clusters_only_are_refused(hub):
    assert (await hub.call("GET", f"{OURS}/users", by=make_principal("root", clusters=["c1"])))[0] == 403
    assert (
        await hub.call("POST", f"{OURS}/users", {"metadata": {"name": "x"}}, by=make_principal("root", read_only=True))
    )[0] == 403
    assert (await hub.call("GET", f"{OURS}/users", by=make_principal("root", read_only=True)))[0] == 200
