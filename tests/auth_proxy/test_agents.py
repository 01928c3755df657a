"""Agents come in: handshake, refusal, two with one identity, silence, surplus, and the ways out through proxies."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl

import pytest

from libs.common import errors
from libs.common.relay import dial, tunnel
from libs.common.relay.head import parse_request
from libs.common.relay.outbound import Hub, connect
from libs.common.resources.clusters import AgentStatus, Cluster
from services.auth_proxy.agent_route import is_genuine
from tests.auth_proxy.door import AgentKey

POD = "/k8s/clusters/prod/api/v1/pods"


async def ask(door, *, cluster="", key="", sign=None, challenge=True, instance="abcdefgh", extra=""):
    """The handshake by hand; returns the second answer."""
    reader, writer = await door.connect()
    try:
        nonce = "none"
        if challenge:
            writer.write(b"GET /agent/v1/challenge HTTP/1.1\r\nHost: h\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            nonce = json.loads(await reader.readexactly(size))["nonce"]
        signature = base64.urlsafe_b64encode(
            (sign or (lambda _: b"x" * 64))(tunnel.signed_bytes(nonce, cluster))
        ).decode()
        writer.write(
            f"GET /agent/v1/connect HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: herdsman-tunnel/1\r\n"
            f"Herdsman-Cluster: {cluster}\r\nHerdsman-Public-Key: {key}\r\nHerdsman-Instance: {instance}\r\n"
            f"Herdsman-Signature: {signature}\r\n{extra}\r\n".encode()
        )
        return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    finally:
        writer.close()


async def test_handshake_table(door):
    await door.member()
    uid, key = door.uids["cluster/prod"], door.keys["prod"]
    other = AgentKey()
    assert b" 101 " in await ask(door, cluster=uid, key=key.public, sign=key.sign)
    assert b" 400 " in await ask(door, cluster=uid, key=key.public, sign=key.sign, challenge=False)
    assert b" 403 " in await ask(door, cluster=uid, key=key.public, sign=other.sign)
    assert b" 403 " in await ask(door, cluster=uid, key=other.public, sign=other.sign)
    assert b" 403 " in await ask(door, cluster="0" * 16, key=key.public, sign=key.sign)
    assert b" 403 " in await ask(door, cluster=uid, key=key.public, sign=lambda data: key.sign(data + b"x"))
    assert b" 400 " in await ask(door, cluster=uid, key=key.public, sign=key.sign, instance="!")
    assert b" 400 " in await ask(door, cluster=uid, key=key.public, sign=key.sign, extra="Herdsman-Cluster: x\r\n")


def test_signature_is_checked_against_a_whole_user_key():
    key = AgentKey()
    good = base64.urlsafe_b64encode(key.sign(b"data"))
    assert is_genuine(key.public, good, b"data")
    for public in ("", "U", "A" + key.public[1:], key.public[:-1], key.public[:-1] + "A", key.public + "A", "ü" * 56):
        assert not is_genuine(public, good, b"data")
    for signature in (b"", b"x", b"%%%%", good[:-4]):
        assert not is_genuine(key.public, signature, b"data")


async def test_cluster_that_is_deleted_or_gets_another_key_is_cut_off(door, echo, eventually):
    token = await door.member()
    async with door.agent("prod", echo.address) as agent:
        cluster = await door.cluster("prod")
        cluster.status.agent = AgentStatus(public_key=AgentKey().public)
        await door.put(cluster)
        await eventually(lambda: "not its agent's" in agent.last_error)
        assert agent.connected == 0
        await door.cluster("prod")
        await door.remove(Cluster, "prod")
        assert (await door.get(POD, token)).status == 403


async def test_newest_of_two_agents_with_one_identity_serves_and_the_other_says_so(door, echo, eventually):
    token = await door.member()
    async with door.agent("prod", echo.address) as first, door.agent("prod", echo.address) as second:
        await eventually(lambda: "two agents run with one identity" in first.last_error)
        assert first.connected == 0
        assert second.connected == 2
        assert (await door.get(POD, token)).status == 200
        await asyncio.sleep(0.3)
        assert first.connected == 0
        assert second.connected >= 2


async def test_agent_comes_back_when_its_connections_are_cut(door, echo, eventually):
    token = await door.member()
    async with door.agent("prod", echo.address) as agent:
        for session in list(agent._engine.sessions):
            session.transport.abort()
        await eventually(lambda: agent.connected == 2)
        assert (await door.get(POD, token)).status == 200


async def test_pings_keep_idle_connections_and_silence_ends_them(door, echo, eventually, monkeypatch):
    monkeypatch.setattr(tunnel, "PING_EVERY_S", 0.3)
    await door.member()
    async with door.agent("prod", echo.address) as agent:
        await asyncio.sleep(2.5)
        assert agent.connected == 2
        assert all(s.requests >= 1 for s in agent._engine.sessions)
        before = set(agent._engine.sessions)
        for session in before:
            session.deadline = 0.0  # as after 35 s without a word
        await eventually(lambda: not before & agent._engine.sessions)
        await eventually(lambda: agent.connected == 2)


async def test_surplus_connections_are_given_up_in_answer_to_a_ping(door, echo, eventually, monkeypatch):
    monkeypatch.setattr(tunnel, "PING_EVERY_S", 0.3)
    monkeypatch.setattr(dial, "_SURPLUS_S", 0.5)
    token = await door.member()
    async with door.agent("prod", echo.address, idle=2) as agent:
        streams = [await door.connect() for _ in range(6)]
        for reader, writer in streams:
            writer.write(
                f"GET {POD}/x/exec HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            await reader.read()
            writer.close()
        watching = [asyncio.create_task(door.get(POD, token)) for _ in range(40)]
        assert {r.status for r in await asyncio.gather(*watching)} == {200}
        assert agent.connected > 2
        await eventually(lambda: agent.connected == 2, 15)
        assert (await door.get(POD, token, method="POST", body=b"x")).status == 200


async def test_agent_reaches_the_hub_through_a_proxy(door, echo):
    asked = []

    async def proxy(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

        async def pump(source, target):
            try:
                while data := await source.read(65536):
                    target.write(data)
            except ConnectionError:
                pass
            target.close()

        await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    # A loopback name is never asked of a proxy, so the hub gets one that only the proxy knows.
    hub = Hub(f"https://hub.invalid:{door.port}", _lenient(door), {"HTTPS_PROXY": f"http://127.0.0.1:{port}"})
    transport, protocol = await connect(hub, dial.Handshake)
    head, body = await protocol.ask(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (head.status, body) == (200, b"ok")
    assert asked[0].startswith(b"CONNECT hub.invalid:")
    transport.abort()
    server.close()
    await asyncio.sleep(0.05)


def _lenient(door) -> ssl.SSLContext:
    context = door.client_tls()
    context.check_hostname = False
    return context


async def test_wrong_ca_is_explained(door):
    hub = Hub(f"https://localhost:{door.port}", ssl.create_default_context())
    with pytest.raises(errors.Unavailable, match="not signed by the CA that this agent was given"):
        await connect(hub, dial.Handshake)


async def test_agent_refuses_what_the_hub_may_not_say(door, echo, eventually):
    """A fault in the hub is not cluster-admin everywhere: the agent answers 403 itself."""
    await door.member()
    async with door.agent("prod", echo.address) as agent:
        for lines in (
            b"",
            b"Impersonate-User: system:admin\r\n",
            b"Impersonate-User: herdsman:a\r\nImpersonate-Group: system:masters\r\n",
        ):
            session = next(iter(agent._engine.sessions))
            head = b"GET /api HTTP/1.1\r\nHost: k\r\n" + lines + b"\r\n"
            decision = agent._engine.decide(parse_request(head), session)
            assert decision.error.http_status == 403
    assert not echo.heads
