"""Every form of change through the hub: bodies reach the API server as they were sent, and its answers come back whole."""

from __future__ import annotations

import json
import os

import pytest

from integration.proxy.wire import PROTOBUF

FULL = True
PATHS = ("reverse", "direct")
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(240)]
MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
JSON = "application/json"


@pytest.fixture
async def thing(both):
    """A map `written` as it was a moment ago."""
    await both.direct("DELETE", f"{MAPS}/written")
    body = json.dumps({"metadata": {"name": "written"}, "data": {"a": "1", "b": "2"}}).encode()
    made = await both.direct("POST", MAPS, body=body, Content_Type=JSON)
    assert made.status == 201, made.body
    yield both
    await both.direct("DELETE", f"{MAPS}/written")


async def data(both):
    return (await both.direct("GET", f"{MAPS}/written")).json()["data"]


async def test_json_merge_and_strategic_patches_do_what_they_say(thing):
    patches = [
        ("application/json-patch+json", [{"op": "replace", "path": "/data/a", "value": "j"}], {"a": "j", "b": "2"}),
        ("application/merge-patch+json", {"data": {"b": None, "c": "m"}}, {"a": "j", "c": "m"}),
        ("application/strategic-merge-patch+json", {"data": {"d": "s"}}, {"a": "j", "c": "m", "d": "s"}),
    ]
    for kind, patch, expected in patches:
        answer = await thing.hub("PATCH", f"{MAPS}/written", body=json.dumps(patch).encode(), Content_Type=kind)
        assert answer.status == 200, answer.body
        assert await data(thing) == expected
    failed = await thing.both(
        "PATCH", f"{MAPS}/written", body=b'[{"op":"test","path":"/data/a","value":"x"}]', Content_Type="application/json-patch+json"
    )  # fmt: skip
    assert failed[0].status == failed[1].status == 422
    assert failed[0].body == failed[1].body


async def test_server_side_apply_merges_and_names_the_other_manager_in_a_conflict(thing):
    def applied(value):
        text = json.dumps(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "written"}, "data": {"e": value}}
        )
        return {"body": text.encode(), "Content_Type": "application/apply-patch+yaml"}

    assert (await thing.hub("PATCH", f"{MAPS}/written?fieldManager=one", **applied("1"))).status == 200
    through, straight = await thing.both("PATCH", f"{MAPS}/written?fieldManager=two", **applied("2"))
    assert through.status == 409
    assert 'conflict with "one"' in through.json()["message"]
    assert through.body == straight.body
    forced = await thing.hub("PATCH", f"{MAPS}/written?fieldManager=two&force=true", **applied("2"))
    assert forced.status == 200
    assert (await data(thing))["e"] == "2"
    assert {m["manager"] for m in forced.json()["metadata"]["managedFields"]} >= {"two"}


async def test_strategic_patches_merge_lists_by_name(both):
    body = {
        "metadata": {"name": "written"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"x": "y"}}, "template": {
            "metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "a", "image": "i.example/a:1"}]}}},
    }  # fmt: skip
    made = await both.hub("POST", DEPLOYMENTS, body=json.dumps(body).encode(), Content_Type=JSON)
    assert made.status == 201, made.body
    try:
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "i.example/b:1"}]}}}}
        answer = await both.hub(
            "PATCH", f"{DEPLOYMENTS}/written", body=json.dumps(patch).encode(), Content_Type="application/strategic-merge-patch+json"
        )  # fmt: skip
        assert {c["name"] for c in answer.json()["spec"]["template"]["spec"]["containers"]} == {"a", "b"}
        scaled = await both.hub(
            "PATCH", f"{DEPLOYMENTS}/written/scale", body=b'{"spec":{"replicas":0}}', Content_Type="application/merge-patch+json"
        )  # fmt: skip
        assert scaled.json()["kind"] == "Scale"
    finally:
        assert (await both.hub("DELETE", f"{DEPLOYMENTS}/written?propagationPolicy=Background")).status == 200


async def test_protobuf_goes_in_and_comes_out_unchanged(thing):
    form = {"Accept": PROTOBUF, "Content_Type": PROTOBUF}
    stored = await thing.direct("GET", f"{MAPS}/written", Accept=PROTOBUF)
    assert stored.body.startswith(b"k8s\x00")
    # Written back as it is: the API server finds nothing changed, so both answers are the stored bytes again.
    through, straight = await thing.both("PUT", f"{MAPS}/written?dryRun=All", body=stored.body, **form)
    assert through.status == 200
    assert through.body == straight.body
    renamed = stored.body.replace(b"written", b"wr1tten")
    refused = await thing.both("PUT", f"{MAPS}/wr1tten", body=renamed, **form)
    assert refused[0].status == refused[1].status
    assert refused[0].body == refused[1].body


async def test_binary_values_survive(both):
    import base64

    value = base64.b64encode(bytes(range(256)) + os.urandom(700_000)).decode()
    body = json.dumps({"metadata": {"name": "binary"}, "binaryData": {"x": value}}).encode()
    made = await both.hub("POST", MAPS, body=body, Content_Type=JSON)
    assert made.status == 201, made.body[:300]
    assert (await both.same(f"{MAPS}/binary")).json()["binaryData"]["x"] == value
    assert (await both.hub("DELETE", f"{MAPS}/binary")).status == 200


async def test_a_dry_run_changes_nothing(thing):
    before = (await thing.direct("GET", f"{MAPS}/written")).body
    answer = await thing.hub(
        "PATCH", f"{MAPS}/written?dryRun=All", body=b'{"data":{"a":"dry"}}', Content_Type="application/merge-patch+json"
    )
    assert answer.json()["data"]["a"] == "dry"
    assert (await thing.hub("DELETE", f"{MAPS}/written?dryRun=All")).status == 200
    assert (await thing.direct("GET", f"{MAPS}/written")).body == before


async def test_validation_warns_or_refuses_as_asked(both):
    body = b'{"metadata":{"name":"checked"},"daata":{"a":"1"}}'
    target = f"{MAPS}?dryRun=All&fieldValidation="
    warned = await both.hub("POST", target + "Warn", body=body, Content_Type=JSON)
    assert warned.status == 201
    assert 'unknown field \\"daata\\"' in warned.header("warning")
    through, straight = await both.both("POST", target + "Strict", body=body, Content_Type=JSON)
    assert through.status == 400
    assert through.body == straight.body


async def test_a_stale_update_is_a_conflict(thing):
    stored = (await thing.hub("GET", f"{MAPS}/written")).json()
    stored["data"]["a"] = "first"
    assert (
        await thing.hub("PUT", f"{MAPS}/written", body=json.dumps(stored).encode(), Content_Type=JSON)
    ).status == 200
    through, straight = await thing.both("PUT", f"{MAPS}/written", body=json.dumps(stored).encode(), Content_Type=JSON)
    assert through.status == 409
    assert through.body == straight.body
