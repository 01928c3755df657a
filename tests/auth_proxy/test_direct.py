"""Clusters that the front door reaches itself, by a kubeconfig in a folder: the same call without an agent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import ssl

import pytest
import yaml

from libs.common import errors
from libs.common.crypto.ca import generate_ca, issue_server
from libs.common.relay.sweeper import Sweeper
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.runtime.host import Host
from services.auth_proxy import direct, direct_file
from tests.auth_proxy.door import open_door
from tests.auth_proxy.judge import Judge, fields, listening, replying

POD = "/k8s/clusters/prod/api/v1/pods"
ADA = "herdsman:ada"


@pytest.fixture
async def judge():
    async with Judge().serving() as made:
        yield made


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(direct, "LOOK_EVERY_S", 0.05)
    made = tmp_path / "direct"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
async def door(tmp_path, folder):
    async with open_door(tmp_path, tunnel_wait_s=0.2, direct_clusters=folder) as opened:
        yield opened


def write(folder, server, *, user=None, cluster=None, name="prod", mode=0o600):
    """As an administrator puts it there: whole, by a rename."""
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "u", "user": user if user is not None else {"token": "direct-token"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    fresh = folder / ".fresh"
    fresh.write_text(yaml.safe_dump(document))
    fresh.chmod(mode)
    fresh.replace(folder / f"{name}.kubeconfig")


def loopback(judge):
    return f"http://127.0.0.1:{judge.port}"


async def settle(door, token, status, *lines, until=lambda reply: True):
    """The first answer with that status for which `until` holds; the folder is looked at now and then."""
    for _ in range(250):
        reply = await door.get(POD, token, *lines)
        if reply.status == status and until(reply):
            return reply
        await asyncio.sleep(0.02)
    raise AssertionError(reply.raw)


async def test_call_goes_to_the_cluster_without_an_agent_and_with_everything_else_the_same(door, judge, folder):
    write(folder, loopback(judge))
    token = await door.member()
    reply = await settle(door, token, 200)
    seen = fields(judge.calls[-1])
    assert ("host", f"127.0.0.1:{judge.port}") in seen
    assert ("authorization", "Bearer direct-token") in seen
    names = [name for name, _ in seen if name.startswith("impersonate-")]
    assert ("impersonate-user", ADA) in seen
    assert names.count("impersonate-user") == 1
    assert b"Content-Security-Policy: sandbox" in reply.head
    assert (await door.get(POD, "")).status == 401
    assert (await door.get(POD, await door.token(await door.user("eve")))).status == 403
    assert (await door.get(POD, token, "X-Remote-User: x")).status == 400
    events = await door.events(4)
    told = {
        (e["user"]["username"], e["responseStatus"]["code"], e["annotations"]["audit.herdsman.dev/cluster"])
        for e in events
    }
    assert told >= {("ada", 200, "prod"), ("eve", 403, "prod")}
    assert "direct-token" not in door.audit_file.read_text()


async def test_wish_is_reviewed_by_the_same_code_before_a_direct_call(door, judge, folder):
    write(folder, loopback(judge))
    token = await door.member()
    judge.rights = {(ADA, "users", "jane")}
    await settle(door, token, 200)
    before = len(judge.calls)
    assert (await door.get(POD, token, "Impersonate-User: jim")).status == 403
    assert (await door.get(POD, token, "Impersonate-User: jane", "Impersonate-Group: system:masters")).status == 403
    assert len(judge.calls) == before
    assert judge.asked == [(ADA, "users", "jim")]
    assert (await door.get(POD, token, "Impersonate-User: jane")).status == 200
    assert ("impersonate-extra-herdsman-impersonator", ADA) in fields(judge.calls[-1])


async def test_cluster_that_has_both_is_reached_directly_and_by_its_agent_when_the_file_is_gone(door, judge, folder):
    write(folder, loopback(judge))
    token = await door.member()
    async with Judge("agents").serving() as behind_agent, door.agent("prod", behind_agent.address):
        # Until its file was looked at, the cluster is reached by its agent.
        await settle(door, token, 200, until=lambda reply: json.loads(reply.body)["cluster"] == "prod")
        before = len(judge.calls)
        assert json.loads((await door.get(POD, token)).body)["cluster"] == "prod"
        assert len(judge.calls) == before + 1
        (folder / "prod.kubeconfig").unlink()
        await settle(door, token, 200, until=lambda reply: json.loads(reply.body)["cluster"] == "agents")


async def test_credential_file_that_is_replaced_counts_soon_and_a_broken_one_changes_nothing(door, judge, folder):
    write(folder, loopback(judge))
    token = await door.member()
    await settle(door, token, 200)
    write(folder, loopback(judge), user={"token": "another-token"})
    await settle(door, token, 200, until=lambda _: ("authorization", "Bearer another-token") in fields(judge.calls[-1]))
    for broken in ("{", "[]", "current-context: x", "", "clusters: 5", "users: [1]", "contexts: {a: b}"):
        (folder / ".fresh").write_text(broken)
        (folder / ".fresh").chmod(0o600)
        (folder / ".fresh").replace(folder / "prod.kubeconfig")
        await asyncio.sleep(0.12)
        assert (await door.get(POD, token)).status == 200
    write(folder, loopback(judge), user={"token": "third"}, mode=0o644)
    await asyncio.sleep(0.12)
    assert (await door.get(POD, token)).status == 200
    assert ("authorization", "Bearer another-token") in fields(judge.calls[-1])


async def test_refusal_of_the_credential_is_502_and_never_tells_the_caller_to_sign_in(door, folder):
    async with listening(replying(lambda _: b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")) as port:
        write(folder, f"http://127.0.0.1:{port}")
        token = await door.member()
        reply = await settle(door, token, 502)
        assert "expired or was revoked" in reply.message
        # Behind a proxied service somebody else says 401, and means the caller.
        service = "/k8s/clusters/prod/api/v1/namespaces/a/services/b/proxy/c"
        assert (await door.get(service, token)).status == 401


async def test_redirect_to_elsewhere_is_not_passed_on(door, folder):
    redirect = b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n"
    async with listening(replying(lambda _: redirect)) as port:
        write(folder, f"http://127.0.0.1:{port}")
        token = await door.member()
        reply = await settle(door, token, 502)
        assert b"evil" not in reply.raw


async def test_program_that_prints_tokens_is_run_ahead_of_time_and_again_after_a_refusal(door, folder, judge, tmp_path, monkeypatch):  # fmt: skip
    monkeypatch.setattr("libs.common.relay.api_server._REFUSED_PAUSE_S", 0.01)
    program = tmp_path / "print-token"
    program.write_text(
        '#!/bin/sh\necho x >> "$0.runs"\n'
        'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s"}}\' "$(cat "$0.token")"\n'
    )
    program.chmod(0o700)
    (tmp_path / "print-token.token").write_text("first")
    user = {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
    }
    accepted = b"first"

    def reply(head):
        return b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % (b"200 OK" if b"Bearer " + accepted in head else b"401 No")

    async with listening(replying(reply)) as port:
        write(folder, f"http://127.0.0.1:{port}", user=user)
        token = await door.member()
        await settle(door, token, 200)
        for _ in range(5):
            assert (await door.get(POD, token)).status == 200
        assert (tmp_path / "print-token.runs").read_text().count("x") == 1
        accepted = b"second"
        (tmp_path / "print-token.token").write_text("second")
        assert (await door.get(POD, token)).status == 502
        await settle(door, token, 200)


async def test_credential_that_cannot_be_had_is_503_and_says_why(door, folder, judge):
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "/nowhere/at-all",
            "interactiveMode": "Never",
        }
    }
    write(folder, loopback(judge), user=user)
    token = await door.member()
    reply = await settle(door, token, 503, until=lambda reply: "there is no credential" in reply.message)
    assert "/nowhere/at-all" in reply.message
    assert not judge.calls


async def test_certificate_of_the_same_authority_is_accepted_and_of_another_is_502(door, folder, tmp_path):
    ca, other = generate_ca("cluster", Host.now()), generate_ca("cluster", Host.now())

    def tls(authority):
        leaf = issue_server(authority, ["127.0.0.1"], Host.now())
        file = tmp_path / "leaf.pem"
        file.write_bytes(leaf.certificate + leaf.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    ok = replying(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    token = await door.member()
    data = base64.b64encode(ca.certificate).decode()
    port = 0
    for authority, status in ((ca, 200), (ca, 200), (other, 502), (ca, 200)):
        async with listening(ok, port, tls(authority)) as port:
            if not (folder / "prod.kubeconfig").exists():
                write(folder, f"https://127.0.0.1:{port}", cluster={"certificate-authority-data": data})
            reply = await settle(door, token, status)
            if status == 502:
                assert 'certificate of the API server of cluster "prod" is not accepted' in reply.message


async def test_streams_over_the_direct_way_are_spliced_and_cut_with_the_right(door, folder, judge):
    write(folder, loopback(judge))
    person = await door.user("ada")
    await door.role()
    await door.cluster("prod")
    binding = await door.bind(person, "prod")
    token = await door.token(person)
    await settle(door, token, 200)
    reader, writer = await door.connect()
    writer.write(
        f"POST {POD}/x/exec HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        await door.remove(RoleTemplateBinding, binding)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_file_of_a_cluster_that_is_gone_does_not_lead_a_new_one_of_its_name_there(door, folder, judge):
    write(folder, loopback(judge))
    token = await door.member()
    await settle(door, token, 200)
    await door.remove(Cluster, "prod")
    door.uids.pop("cluster/prod")
    await door.cluster("prod")
    person = await door.user("ada")
    await door.bind(person, "prod")
    before = len(judge.calls)
    reply = await settle(door, token, 503)
    assert "is not connected" in reply.message
    assert len(judge.calls) == before
    write(folder, loopback(judge))
    await settle(door, token, 200)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mode": 0o644}, "chmod 600"),
        ({"mode": 0o640}, "chmod 600"),
        ({"mode": 0o620}, "chmod 600"),
        ({"server": "http://192.0.2.1:6443"}, "https://"),
        ({"cluster": {"insecure-skip-tls-verify": True}, "server": "https://192.0.2.1:6443"}, "certificate-authority"),
        ({"cluster": {"proxy-url": "http://p:1"}, "server": "https://192.0.2.1:6443"}, "proxy-url"),
        ({"user": {"token": "a b"}}, "token"),
        ({"user": {"as": "x", "token": "a"}}, "impersonates"),
        ({"user": {"exec": 5}}, "no kubeconfig"),
        ({"user": [1]}, "no kubeconfig"),
        ({"server": "https://h:99999999"}, "no kubeconfig"),
        ({"server": "https://h:x"}, "no kubeconfig"),
        ({"server": "https://"}, "names no host"),
        ({"user": {"client-key-data": "%", "client-certificate-data": "%"}}, "base64"),
    ],
)
def test_file_that_cannot_be_trusted_or_used_says_what_to_do(folder, change, text):
    write(folder, **{"server": "http://127.0.0.1:1", **change})
    with pytest.raises(errors.Invalid) as raised:
        direct_file.load(folder / "prod.kubeconfig")
    assert text in raised.value.message


def test_folder_that_others_may_write_to_is_refused(folder):
    write(folder, "http://127.0.0.1:1")
    write(folder, "http://127.0.0.1:1", name="Not-A-Name")
    assert list(direct_file.find_files(folder)) == ["prod"]
    folder.chmod(0o777)
    with pytest.raises(errors.Invalid):
        direct_file.find_files(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_mounted_secret_of_a_group_is_private_enough(folder, monkeypatch):
    """fsGroup: root's file, 0440, and a process of another user. A stranger's file is refused whatever its mode."""
    write(folder, "http://127.0.0.1:1", mode=0o440)
    file = folder / "prod.kubeconfig"
    monkeypatch.setattr(os, "geteuid", lambda: 65532)
    direct_file.load(file)
    file.chmod(0o444)
    with pytest.raises(errors.Invalid):
        direct_file.load(file)
    file.chmod(0o400)
    os.chown(file, 12345, 0)
    with pytest.raises(errors.Invalid, match="another user"):
        direct_file.load(file)


async def test_certificate_files_that_a_kubeconfig_names_are_followed_too(folder, tmp_path, eventually):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(generate_ca("one", Host.now()).certificate)
    write(folder, "https://127.0.0.1:1", cluster={"certificate-authority": str(ca)})
    clusters = direct.DirectClusters(folder, Sweeper())
    following = asyncio.create_task(clusters.run(), name="following")
    await eventually(lambda: clusters.find("prod", "u") is not None)
    first = clusters.find("prod", "u")
    ca.write_bytes(generate_ca("another", Host.now()).certificate)
    await eventually(lambda: clusters.find("prod", "u") is not first)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    clusters.close()
