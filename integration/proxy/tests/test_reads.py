"""What is read through the hub is what the API server said: bytes, codings, forms, pages, warnings, refusals."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import ssl
import uuid

import aiohttp
import pytest

from integration.harness.hub import eventually
from integration.kubelab.paths import read_json
from integration.kubelab.pki import certificate_path, key_path
from integration.proxy.wire import PROTOBUF

FULL = True
PATHS = ("reverse", "direct")
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(240)]
MAPS = "/api/v1/namespaces/reading/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
COUNT = 60


@pytest.fixture
async def shelf(both):
    """A namespace with 60 maps of 6 kB, and the revision at which a list of them is exact."""
    if (await both.direct("GET", "/api/v1/namespaces/reading")).status == 404:
        made = await both.direct("POST", "/api/v1/namespaces", body=b'{"metadata":{"name":"reading"}}', Content_Type="application/json")  # fmt: skip
        assert made.status == 201, made.body
        bodies = [
            json.dumps({"metadata": {"name": f"m{i:03}", "labels": {"n": str(i)}}, "data": {"x": os.urandom(3000).hex()}})
            for i in range(COUNT)
        ]  # fmt: skip
        answers = await asyncio.gather(
            *(both.direct("POST", MAPS, body=b.encode(), Content_Type="application/json") for b in bodies)
        )
        assert {a.status for a in answers} == {201}
    listed = await both.direct("GET", f"{MAPS}?labelSelector=n%3D0")
    return both, f"resourceVersion={listed.json()['metadata']['resourceVersion']}&resourceVersionMatch=Exact"


@pytest.mark.parametrize("accept", ["application/json", PROTOBUF, TABLE, METADATA, "application/yaml"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_a_list_is_byte_for_byte_what_the_api_server_sends(shelf, accept, coding):
    both, exact = shelf
    for _ in range(20):
        answer, straight = await both.both("GET", f"{MAPS}?{exact}", Accept=accept, Accept_Encoding=coding)
        if accept != TABLE or answer.body == straight.body:
            break  # a table tells ages in seconds, so two of them may differ where a second ends
    assert answer.status == 200
    assert answer.comparable == straight.comparable
    assert answer.body == straight.body
    if coding == "gzip" and (accept not in (TABLE, METADATA)):
        # Large answers come compressed and in chunks, and nobody on the way unpacks them.
        assert answer.header("content-encoding") == "gzip"
        assert answer.header("transfer-encoding") == "chunked"
        assert len(gzip.decompress(answer.body)) > 300_000
    if accept == PROTOBUF and coding == "identity":
        assert answer.body.startswith(b"k8s\x00")


async def test_pages_continue_where_the_last_one_ended(shelf):
    both, _ = shelf
    names, target = [], f"{MAPS}?limit=7"
    while True:
        page = (await both.hub("GET", target)).json()
        names += [item["metadata"]["name"] for item in page["items"]]
        if not page["metadata"].get("continue"):
            break
        again = await both.same(f"{MAPS}?limit=7&continue={page['metadata']['continue']}")
        assert again.status == 200
        target = f"{MAPS}?limit=7&continue={page['metadata']['continue']}"
    assert sorted(names) == names
    assert len(set(names) - {"kube-root-ca.crt"}) == COUNT


async def test_warnings_of_the_api_server_arrive(both):
    answer = await both.same("/api/v1/namespaces/default/endpoints?resourceVersion=0")
    assert "deprecated" in answer.header("warning")
    assert answer.header("warning").startswith("299 ")


async def test_an_audit_id_of_the_clients_is_kept_and_otherwise_one_comes(both):
    mine = str(uuid.uuid4())
    assert (await both.hub("GET", "/version", Audit_Id=mine)).header("audit-id") == mine
    assert uuid.UUID((await both.hub("GET", "/version")).header("audit-id"))


async def test_refusals_are_the_api_servers_own(both):
    for path in (f"{MAPS}/none", "/apis/nope/v1/things", "/api/v1/namespaces/reading/configmaps?limit=x", "/api/v1/pods?fieldSelector=a%3Db"):  # fmt: skip
        answer = await both.same(path)
        assert answer.status in (400, 404)
    wrong = await both.same(MAPS, Accept="application/xml")
    assert wrong.status == 406


async def compact(cluster, revision: int) -> None:
    """Forget everything before the revision, as etcd does by the hour."""
    ports = read_json(cluster.layout.ports_file)
    tls = ssl.create_default_context(cafile=str(certificate_path(cluster.layout.pki, "etcd-ca")))
    tls.load_cert_chain(
        certificate_path(cluster.layout.pki, "etcd-client"), key_path(cluster.layout.pki, "etcd-client")
    )
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"https://127.0.0.1:{ports['etcd-client']}/v3/kv/compaction", json={"revision": revision}, ssl=tls) as answer,
    ):  # fmt: skip
        assert answer.status == 200, await answer.text()


async def test_what_is_too_old_is_gone(way, shelf):
    both, _ = shelf
    # Events, since the API server answers for them from etcd alone: of other kinds it remembers the past itself for a while.
    events = "/api/v1/namespaces/reading/events"
    for i in range(6):
        body = {"metadata": {"name": f"e{i}"}, "involvedObject": {"namespace": "reading"}, "reason": "Tested"}
        made = await both.direct("POST", events, body=json.dumps(body).encode(), Content_Type="application/json")
        assert made.status in (201, 409), made.body
    page = (await both.hub("GET", f"{events}?limit=2")).json()
    old = page["metadata"]["resourceVersion"]
    touched = await both.direct("PATCH", f"{events}/e0", body=b'{"count":%d}' % (int(old) % 10**6), Content_Type="application/merge-patch+json")  # fmt: skip
    await compact(way.cluster, int(touched.json()["metadata"]["resourceVersion"]))
    gone = await both.same(f"{events}?resourceVersion={old}&resourceVersionMatch=Exact")
    assert (gone.status, gone.json()["reason"]) == (410, "Expired")
    expired = await both.hub("GET", f"{events}?limit=2&continue={page['metadata']['continue']}")
    assert expired.status == 410
    # A list can go on although its beginning is gone: the 410 holds a token that says from where.
    resumed = await both.hub("GET", f"{events}?limit=2&continue={expired.json()['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in resumed.json()["items"]] == ["e2", "e3"]


async def test_a_watch_from_a_revision_that_is_too_old_is_told_so(both):
    """A kind that is younger than the revision: the API server's memory of it can't reach back so far."""
    base = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    kind = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "youngs.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": {"plural": "youngs", "kind": "Young"}, "versions": [version]},
    }  # fmt: skip
    made = await both.hub("POST", base, body=json.dumps(kind).encode(), Content_Type="application/json")
    assert made.status == 201, made.body
    try:

        async def is_served() -> bool:
            return (await both.hub("GET", "/apis/example.com/v1/youngs")).status == 200

        await eventually(is_served, 30)
        watched = await both.same("/apis/example.com/v1/youngs?watch=true&resourceVersion=1&timeoutSeconds=5")
        assert (watched.json()["type"], watched.json()["object"]["code"]) == ("ERROR", 410)
    finally:
        assert (await both.hub("DELETE", f"{base}/youngs.example.com")).status == 200


async def test_overload_says_when_to_come_again(shelf):
    """A priority level without a seat of its own serves one call at a time and refuses the others, with 429 and Retry-After."""
    both, _ = shelf
    level = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "no-seat"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}},
    }  # fmt: skip
    schema = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "no-seat"},
        "spec": {"priorityLevelConfiguration": {"name": "no-seat"}, "matchingPrecedence": 2, "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "herdsman:ada"}}],
            "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["reading"]}]}]},
    }  # fmt: skip
    base = "/apis/flowcontrol.apiserver.k8s.io/v1"
    try:
        for kind, body in (("prioritylevelconfigurations", level), ("flowschemas", schema)):
            made = await both.direct("POST", f"{base}/{kind}", body=json.dumps(body).encode(), Content_Type="application/json")  # fmt: skip
            assert made.status == 201, made.body
        refused = []
        async with asyncio.timeout(30):
            while not refused:
                answers = await asyncio.gather(*(both.hub("GET", MAPS) for _ in range(20)))
                refused = [answer for answer in answers if answer.status != 200]
        assert {answer.status for answer in refused} == {429}
        assert all(int(answer.header("retry-after")) >= 1 for answer in refused)
        level_uid = (await both.direct("GET", f"{base}/prioritylevelconfigurations/no-seat")).json()["metadata"]["uid"]
        assert {answer.header("x-kubernetes-pf-prioritylevel-uid") for answer in refused} == {level_uid}
    finally:
        for kind in ("flowschemas", "prioritylevelconfigurations"):
            await both.direct("DELETE", f"{base}/{kind}/no-seat")


@pytest.mark.parametrize("accept", ["application/json", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"])
async def test_openapi_v2_comes_in_both_forms_and_is_not_sent_twice(both, accept):
    answer = await both.same("/openapi/v2", Accept=accept, Accept_Encoding="gzip")
    assert answer.header("content-encoding") == "gzip"
    etag = answer.header("etag")
    assert etag
    again = await both.same("/openapi/v2", Accept=accept, Accept_Encoding="gzip", If_None_Match=etag)
    assert (again.status, again.body) == (304, b"")


async def test_openapi_v3_comes_by_group_with_its_hash(both):
    async def same_index():
        # For a moment after a kind came or went two answers may differ, whoever asks.
        through, straight = await both.both("GET", "/openapi/v3")
        return through if (through.comparable, through.body) == (straight.comparable, straight.body) else None

    index = (await eventually(same_index, 30)).json()
    target = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
    assert "hash=" in target
    for accept in ("application/json", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"):
        answer = await both.same(target, Accept=accept, Accept_Encoding="gzip")
        assert answer.status == 200
        assert "immutable" in answer.header("cache-control")
        assert (await both.same(target, Accept=accept, If_None_Match=answer.header("etag"))).status == 304
    # An old hash leads to the current one, inside the same cluster of the hub.
    stale = target.rpartition("hash=")[0] + "hash=0123456789"
    moved = await both.hub("GET", stale)
    assert moved.status == 200
    assert moved.json()["paths"]
