"""kubectl and raw calls against a real API server, through front door, reverse connection and agent."""

from __future__ import annotations

import asyncio
import json

import pytest

from integration.proxy.tests.conftest import write_kubeconfig
from libs.common.resources.identity import Token

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(240)]
PREFIX = "/k8s/clusters/prod"


async def test_whoami_is_the_real_person_with_prefix_and_synthetic_groups(way):
    answer = await way.kubectl("auth", "whoami", "-o", "json")
    assert answer.code == 0, answer.err
    seen = json.loads(answer.out)["status"]["userInfo"]
    assert seen["username"] == "herdsman:ada"
    assert seen["uid"] == way.door.uids["user/ada"]
    assert set(seen["groups"]) == {"herdsman:cluster:prod:cluster-owner", "system:authenticated"}
    assert seen["extra"]["herdsman-principal"] == [f"local:user:{way.door.uids['user/ada']}"]
    assert seen["extra"]["herdsman-token"]


async def test_objects_are_made_changed_listed_and_deleted(way):
    steps = [
        ("create", "configmap", "a", "--from-literal=x=1"),
        ("get", "configmap", "a", "-o", "yaml"),
        ("patch", "configmap", "a", "-p", '{"data":{"x":"2"}}'),
        ("get", "configmaps", "-A", "--chunk-size=2"),
        ("apply", "--server-side", "-f", "-"),
        ("get", "--raw", "/api/v1/namespaces/default/configmaps?limit=1"),
        ("api-resources",),
        ("explain", "pod.spec"),
        ("delete", "configmap", "a", "b"),
    ]
    manifest = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: b\ndata:\n  big: " + b"x" * 400_000 + b"\n"
    for step in steps:
        answer = await way.kubectl(*step, stdin=manifest if step[0] == "apply" else b"")
        assert answer.code == 0, (step, answer.err)


async def test_watch_events_come_at_once(way):
    reader, writer = await way.door.connect()
    target = f"{PREFIX}/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dwatched"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {way.token}\r\n\r\n".encode())
    assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert (await way.kubectl("create", "configmap", "watched")).code == 0
    line = await asyncio.wait_for(reader.readuntil(b"\n"), 2)
    assert b"ADDED" in line + await asyncio.wait_for(reader.readuntil(b"\n"), 2)
    writer.close()
    await way.kubectl("delete", "configmap", "watched")


async def test_cluster_judges_what_the_role_does_not_give(way, tmp_path):
    person = await way.door.user("vera")
    await way.door.role("nothing-much")
    await way.door.bind(person, "prod", "nothing-much")
    config = write_kubeconfig(tmp_path / "vera", way.door, await way.door.token(person))
    from integration.kubelab.kubectl import kubectl

    answer = await kubectl(config, "get", "secrets")
    assert answer.code == 1
    assert 'User "herdsman:vera" cannot list resource "secrets"' in answer.err


async def test_revoked_token_ends_a_kubectl_watch_within_a_second(way, tmp_path):
    person = await way.door.user("ada")
    token = await way.door.token(person, "short")
    config = write_kubeconfig(tmp_path / "short", way.door, token)
    from integration.kubelab.kubectl import find_kubectl

    process = await asyncio.create_subprocess_exec(
        find_kubectl(), f"--kubeconfig={config}", f"--cache-dir={tmp_path}/c", "get", "--raw",
        "/api/v1/namespaces?watch=true", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    await asyncio.wait_for(process.stdout.readuntil(b"\n"), 20)
    began = asyncio.get_running_loop().time()
    await way.door.remove(Token, "short")
    await asyncio.wait_for(process.stdout.read(), 5)
    assert asyncio.get_running_loop().time() - began < 1.0
    await process.wait()


@pytest.mark.parametrize("websocket", ["true", "false"])
async def test_exec_into_a_missing_pod_gets_the_clusters_own_answer(way, websocket):
    answer = await way.kubectl(
        "exec", "nope", "--", "true", environment={"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websocket}
    )
    assert answer.code == 1
    assert 'pods "nope" not found' in answer.err


async def test_large_lists_come_whole_and_compressed_as_asked(way):
    direct = await way.kubectl("get", "--raw", "/openapi/v2")
    assert direct.code == 0
    assert len(json.loads(direct.out)["paths"]) > 300


async def test_api_server_killed_and_back_is_reached_again(way):
    old = await way.cluster.kill("kube-apiserver")
    reply = await way.door.get(f"{PREFIX}/version", way.token)
    assert reply.status in (502, 503)
    assert json.loads(reply.body)["kind"] == "Status"
    await way.cluster.wait_restarted("kube-apiserver", old)
    for _ in range(100):
        reply = await way.door.get(f"{PREFIX}/version", way.token)
        if reply.status == 200:
            break
        await asyncio.sleep(0.2)
    assert reply.status == 200
