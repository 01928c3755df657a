"""A real API server that the front door reaches itself, by a kubeconfig in its folder: calls, its certificate replaced, its credential replaced."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from integration.kubelab import pki
from integration.kubelab.kubectl import kubectl
from integration.proxy.tests.conftest import write_kubeconfig
from integration.proxy.tests.wishes import agent_token, as_admin, write_direct
from libs.common.crypto.ca import generate_ca, issue_server
from services.gateway.manifest import NAME, NAMESPACE
from tests.auth_proxy.door import open_door

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(300)]
PREFIX = "/k8s/clusters/prod"


@pytest.fixture(scope="module")
def account(plain_cluster):
    return asyncio.run(agent_token(plain_cluster))


@pytest.fixture
async def direct(cluster, account, tmp_path):
    """(door, her token, her kubeconfig, the folder); no agent anywhere."""
    folder = tmp_path / "direct"
    folder.mkdir(mode=0o700)
    write_direct(folder, cluster.server, cluster.ca_file.read_bytes(), {"token": account})
    made = await kubectl(
        cluster.kubeconfig, "create", "clusterrolebinding", "herdsman:cluster-owner", "--clusterrole=cluster-admin",
        "--group=herdsman:cluster:prod:cluster-owner",
    )  # fmt: skip
    assert made.code == 0 or "already exists" in made.err
    async with open_door(tmp_path, direct_clusters=folder, tunnel_wait_s=0.2) as door:
        token = await door.member("ada", "prod")
        yield door, token, write_kubeconfig(tmp_path / "kubeconfig", door, token), folder


async def reach(door, token, status, path="/version"):
    """The first answer with that status."""
    for _ in range(150):
        reply = await door.get(f"{PREFIX}{path}", token)
        if reply.status == status:
            return reply
        await asyncio.sleep(0.2)
    raise AssertionError(reply.raw)


async def test_kubectl_works_without_an_agent_and_is_the_same_person(direct):
    door, token, config, _ = direct
    seen = json.loads((await kubectl(config, "auth", "whoami", "-o", "json")).out)["status"]["userInfo"]
    assert seen["username"] == "herdsman:ada"
    assert set(seen["groups"]) == {"herdsman:cluster:prod:cluster-owner", "system:authenticated"}
    for step in (
        ["create", "configmap", "a", "--from-literal=x=1"],
        ["get", "configmaps", "-A"],
        ["delete", "configmap", "a"],
    ):
        answer = await kubectl(config, *step)
        assert answer.code == 0, answer.err
    reader, writer = await door.connect()
    target = f"{PREFIX}/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dseen"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    async with asyncio.timeout(30):
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        assert (await kubectl(config, "create", "configmap", "seen")).code == 0
        assert b"ADDED" in await reader.readuntil(b"}\n")
    writer.close()
    await kubectl(config, "delete", "configmap", "seen")


@pytest.mark.parametrize("websocket", ["true", "false"])
async def test_exec_into_a_missing_pod_gets_the_clusters_own_answer(direct, websocket):
    _, _, config, _ = direct
    answer = await kubectl(
        config, "exec", "nope", "--", "true", environment={"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websocket}
    )
    assert answer.code == 1
    assert 'pods "nope" not found' in answer.err


async def test_api_server_with_another_certificate_of_its_authority_is_reached_and_of_another_is_not(direct, cluster):
    door, token, _, _ = direct
    await reach(door, token, 200)
    host = urlsplit(cluster.server).hostname
    certificate, key = (
        pki.certificate_path(cluster.layout.pki, "apiserver"),
        pki.key_path(cluster.layout.pki, "apiserver"),
    )
    before = certificate.read_bytes(), key.read_bytes()
    now = datetime.now(UTC)
    strange = issue_server(generate_ca("another", now), [host, "localhost"], now)
    again = pki.leaves("prod", [host], "10.96.0.1", None)[0]
    try:
        certificate.unlink()
        key.unlink()
        assert pki.ensure_pki(cluster.layout.pki, [again], now) == ["apiserver"]
        await _restart(cluster)
        await reach(door, token, 200)
        _put(certificate, strange.certificate)
        _put(key, strange.key)
        await _restart(cluster)
        reply = await reach(door, token, 502)
        assert json.loads(reply.body)["kind"] == "Status"
        assert 'certificate of the API server of cluster "prod" is not accepted' in reply.message
    finally:
        _put(certificate, before[0])
        _put(key, before[1])
        await _restart(cluster)
        await reach(door, token, 200)


async def test_credential_that_is_revoked_is_502_and_its_replacement_in_the_file_is_used(direct, cluster):
    door, token, _, folder = direct
    await as_admin(cluster, "create", "serviceaccount", "second", "-n", NAMESPACE)
    await as_admin(
        cluster,
        "create",
        "clusterrolebinding",
        "second",
        f"--clusterrole={NAME}",
        f"--serviceaccount={NAMESPACE}:second",
    )
    other = (await as_admin(cluster, "create", "token", "second", "-n", NAMESPACE)).out.strip()
    ca = cluster.ca_file.read_bytes()
    write_direct(folder, cluster.server, ca, {"token": other})
    await asyncio.sleep(2.5)  # the folder is looked at every two seconds, and nothing shows which token is in use
    await reach(door, token, 200)
    await as_admin(cluster, "delete", "serviceaccount", "second", "-n", NAMESPACE)
    reply = await reach(door, token, 502)
    assert "expired or was revoked" in reply.message
    fresh = (await as_admin(cluster, "create", "token", NAME, "-n", NAMESPACE)).out.strip()
    write_direct(folder, cluster.server, ca, {"token": fresh})
    await reach(door, token, 200)


async def test_client_certificate_is_a_credential_too(direct, cluster):
    import yaml

    door, token, config, folder = direct
    user = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]
    write_direct(folder, cluster.server, cluster.ca_file.read_bytes(), user)
    await asyncio.sleep(2.5)  # as above
    await reach(door, token, 200)
    assert (await kubectl(config, "get", "namespaces", "--as=jane", "--as-group=system:masters")).code == 1
    seen = json.loads((await kubectl(config, "auth", "whoami", "-o", "json", "--as=jane")).out)["status"]["userInfo"]
    assert seen["extra"]["herdsman-impersonator"] == ["herdsman:ada"]


def _put(file: Path, data: bytes) -> None:
    fresh = file.with_name(f"{file.name}.new")
    fresh.write_bytes(data)
    os.chmod(fresh, 0o600)  # noqa: PTH101 - one line beside its reason: a key
    fresh.replace(file)


async def _restart(cluster) -> None:
    """Kill it, and wait until another process has its port; its own readiness probe cannot trust what it will show."""
    old = await cluster.kill("kube-apiserver")
    host, port = urlsplit(cluster.server).hostname, urlsplit(cluster.server).port
    for _ in range(300):
        await asyncio.sleep(0.1)
        if cluster.pids().get("kube-apiserver", old) == old:
            continue
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            continue
        writer.close()
        return
    raise AssertionError("the API server did not come back")
