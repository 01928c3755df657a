"""An aggregated API through the hub: Kubernetes' own sample API server sees the real person and serves like a built-in kind."""

from __future__ import annotations

import asyncio
import json

import pytest

from integration.proxy.aggregated import GROUP, run_extension
from integration.proxy.go_programs import TEST_PROGRAMS, build_program

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(600)]
BASE = f"/apis/{GROUP}/v1alpha1"
FLUNDERS = f"{BASE}/namespaces/default/flunders"
MANIFEST = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "Flunder", "metadata": {"name": "one", "labels": {"a": "b"}}}


@pytest.fixture(scope="session")
def program():
    return build_program(TEST_PROGRAMS)


@pytest.fixture
async def extension(program, way, tmp_path):
    async with run_extension(program, way.cluster, tmp_path) as running:
        yield running


async def test_an_aggregated_kind_is_served_like_any_other_and_sees_the_real_caller(extension, way, both):
    assert "flunders" in (await way.kubectl("api-resources", f"--api-group={GROUP}", "-o", "name")).out
    assert (await both.same(BASE)).status == 200
    await explained(way)
    watching = asyncio.create_task(
        both.hub("GET", f"{FLUNDERS}?watch=true&resourceVersion=0&timeoutSeconds=8"), name="watch"
    )
    made = await way.kubectl("apply", "-f", "-", stdin=json.dumps(MANIFEST).encode())
    assert made.code == 0, made.err
    assert "one" in (await way.kubectl("get", "flunders", "-l", "a=b")).out
    patched = await way.kubectl("patch", "flunder", "one", "--type=merge", "-p", '{"metadata":{"labels":{"a":"c"}}}')
    assert patched.code == 0, patched.err
    listed = await both.same(f"{FLUNDERS}?labelSelector=a%3Dc")
    assert [item["metadata"]["name"] for item in listed.json()["items"]] == ["one"]
    assert (await way.kubectl("delete", "flunder", "one")).code == 0
    events = [json.loads(line) for line in (await watching).body.splitlines()]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]

    (seen,) = extension.callers("delete", "flunders")
    assert seen["username"] == "herdsman:ada"
    assert set(seen["groups"]) == {"herdsman:cluster:prod:cluster-owner", "system:authenticated"}
    assert seen["extra"]["herdsman-principal"] == [f"local:user:{way.door.uids['user/ada']}"]


async def explained(way):
    """The cluster's aggregator fetches the kind's schema some time after it serves the kind itself."""
    for _ in range(60):
        answer = await way.kubectl("explain", f"flunders.{GROUP}")
        if answer.code == 0:
            return
        await asyncio.sleep(1)
    raise AssertionError(answer.err)


async def test_a_caller_without_rights_is_refused_by_the_aggregated_server_itself(extension, way):
    person = await way.door.user("vera")
    await way.door.role("nothing-much")
    await way.door.bind(person, "prod", "nothing-much")
    reply = await way.door.get(f"/k8s/clusters/prod{FLUNDERS}", await way.door.token(person))
    assert reply.status == 403
    assert 'User "herdsman:vera" cannot list resource "flunders"' in reply.message


async def test_an_aggregated_server_that_is_away_is_the_clusters_own_answer(way, both):
    service = {
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.away.example.com"},
        "spec": {"group": "away.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
                 "service": {"name": "away", "namespace": "default"}, "insecureSkipTLSVerify": True},
    }  # fmt: skip
    base = "/apis/apiregistration.k8s.io/v1/apiservices"
    made = await both.hub("POST", base, body=json.dumps(service).encode(), Content_Type="application/json")
    assert made.status == 201
    try:
        answer = await both.hub("GET", "/apis/away.example.com/v1/things")
        assert answer.status == 503
        assert b"service unavailable" in answer.body.lower()
        # Discovery of everything else goes on.
        assert (await way.kubectl("get", "configmaps")).code == 0
    finally:
        assert (await both.hub("DELETE", f"{base}/v1.away.example.com")).status == 200
