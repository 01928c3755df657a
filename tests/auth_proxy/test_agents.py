"""Agents come in: handshake, refusal, two with one identity, silence, surplus, and the ways out through proxies."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl

import pytest

from libs.common import errors
from libs.common.relay import demand, dial, reach, tunnel
from libs.common.relay.handshake import Handshake
from libs.common.relay.head import parse_request
from libs.common.relay.outbound import Hub, connect
from libs.common.resources.clusters import AgentStatus, Cluster
from services.auth_proxy.doorstep import is_genuine
from tests.auth_proxy.door import AgentKey

POD = "/k8s/clusters/prod/api/v1/pods"


UPGRADE = "Connection: Upgrade\r\nUpgrade: herdsman-tunnel/2\r\n"


async def switch(door, lines=UPGRADE):
    """The request for the switch; returns the streams and the head of the answer."""
    reader, writer = await door.connect()
    writer.write(f"GET /agent/v1/connect HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())
    return reader, writer, await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)


async def ask(door, *, cluster="", key="", sign=None, instance="abcdefgh", kube_system="", more=b"", **extra):
    """The handshake by hand; returns the last line of it, None when the hub just closed."""
    reader, writer, head = await switch(door)
    try:
        assert b" 101 " in head
        nonce = json.loads(await asyncio.wait_for(reader.readline(), 5))["nonce"]
        signed = tunnel.signed_bytes(nonce, cluster, instance, kube_system)
        signature = base64.urlsafe_b64encode((sign or (lambda _: b"x" * 64))(signed)).decode()
        proof = {
            "cluster": cluster,
            "publicKey": key,
            "instance": instance,
            "kubeSystem": kube_system,
            "signature": signature,
        }
        writer.write(json.dumps({**proof, **extra}).encode() + b"\n" + more)
        line = await asyncio.wait_for(reader.readline(), 5)
        return json.loads(line) if line else None
    except ConnectionError:
        return None
    finally:
        writer.close()


async def test_handshake_table(door):
    await door.member()
    uid, key = door.uids["cluster/prod"], door.keys["prod"]
    other = AgentKey()
    good = {"cluster": uid, "key": key.public, "sign": key.sign}
    assert await ask(door, **good) == {"waiting": 0, "ca": ""}
    assert (await ask(door, **{**good, "sign": other.sign}))["code"] == 403
    assert (await ask(door, cluster=uid, key=other.public, sign=other.sign))["code"] == 403
    assert (await ask(door, **{**good, "cluster": "0" * 16}))["code"] == 403
    assert (await ask(door, **{**good, "sign": lambda data: key.sign(data + b"x")}))["code"] == 403
    assert (await ask(door, **good, instance="!"))["code"] == 400
    assert (await ask(door, **good, cluster_uid=1, kube_system="x y"))["code"] == 400
    assert (await ask(door, **good, ca="no digest"))["code"] == 400
    assert (await ask(door, **good, publicKey=7))["code"] == 400
    assert await ask(door, **good, more=b"HTTP/1.1 200 OK\r\n\r\n") is None
    assert await ask(door, **good, more=b"x" * 20_000) is None


async def test_signature_is_good_for_one_connection_and_for_what_it_was_made_over(door):
    await door.member()
    uid, key = door.uids["cluster/prod"], door.keys["prod"]
    kept = []

    def sign(data):
        kept.append(key.sign(data))
        return kept[0]

    assert "waiting" in await ask(door, cluster=uid, key=key.public, sign=sign)
    assert (await ask(door, cluster=uid, key=key.public, sign=sign))["code"] == 403
    answer = await ask(
        door, cluster=uid, key=key.public, kubeSystem="other",
        sign=lambda data: key.sign(data),
    )  # fmt: skip
    assert answer["code"] == 403


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("", 400),
        ("Connection: Upgrade\r\nUpgrade: herdsman-tunnel/1\r\n", 400),
        (UPGRADE + "Content-Length: 1\r\n", 400),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", 400),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", 400),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
            400,
        ),
    ],
)
async def test_switch_is_refused_in_http(door, lines, status):
    _, writer, head = await switch(door, lines)
    assert b" %d " % status in head
    writer.close()


async def test_strangers_are_bounded_in_number_and_in_time(door, monkeypatch):
    monkeypatch.setattr(tunnel, "HANDSHAKE_S", 0.3)
    await door.member()
    uid, key = door.uids["cluster/prod"], door.keys["prod"]
    doorstep = door.doorstep
    monkeypatch.setattr(doorstep, "_room", 3)
    strangers = [await switch(door) for _ in range(4)]
    assert doorstep.standing == 3
    # The first was sent away for the fourth, and an agent is let in while the place is full.
    assert "waiting" in await ask(door, cluster=uid, key=key.public, sign=key.sign)
    for reader, writer, _ in strangers:
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert doorstep.standing == 0


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


async def test_agents_of_one_cluster_serve_side_by_side_and_a_dying_one_loses_only_its_own(door, echo, eventually):
    token = await door.member()
    async with (
        door.agent("prod", echo.address, kube_system="ks-1") as first,
        door.agent("prod", echo.address, kube_system="ks-1") as second,
    ):
        watches = [await watch(door, token) for _ in range(4)]
        assert (first.serving, second.serving) == (2, 2)
        for session in list(first._engine.sessions):
            session.transport.abort()
        ended = [asyncio.create_task(reader.read()) for reader, _ in watches]
        await eventually(lambda: sum(task.done() for task in ended) == 2)
        assert second.serving == 2
        await eventually(lambda: first.connected >= 2)
        for _ in range(6):
            assert (await door.get(POD, token)).status == 200
        assert not first.last_error + second.last_error
        for _, writer in watches:
            writer.close()
        await asyncio.gather(*ended)


async def test_identity_that_was_copied_into_another_cluster_is_not_served_beside_the_first(door, echo, eventually):
    token = await door.member()
    async with (
        door.agent("prod", echo.address, kube_system="ks-1") as first,
        door.agent("prod", echo.address, kube_system="ks-2") as second,
    ):
        await eventually(lambda: "two agents run with one identity" in first.last_error)
        assert (first.connected, second.connected) == (0, 2)
        assert (await door.get(POD, token)).status == 200


async def echo_stream(door, token, data):
    """All of the data through an upgraded stream and back."""
    reader, writer = await door.connect()
    writer.write(
        f"POST {POD}/x/exec HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n".encode()
    )
    assert b" 101 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.write(data)
    assert await asyncio.wait_for(reader.readexactly(len(data)), 20) == data
    writer.close()


async def watch(door, token):
    """An open watch: its streams, once the first event came."""
    reader, writer = await door.connect()
    writer.write(f"GET {POD}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"event"), 30)
    return reader, writer


@pytest.mark.parametrize("door", [{"tunnel_wait_s": 30.0}], indirect=True)
async def test_fifty_calls_at_once_wait_for_one_handshake_after_the_first(door, echo, monkeypatch):
    """Rounds are counted, not timed: a handshake is of the next round when one of the last round had ended before it began."""
    token = await door.member()
    rounds: list[int] = []
    finished = 0
    real = dial.reach

    async def counted(*arguments):
        nonlocal finished
        depth = finished
        rounds.append(depth)
        result = await real(*arguments)
        finished = max(finished, depth + 1)
        return result

    async with door.agent("prod", echo.address, idle=4) as agent:
        monkeypatch.setattr(dial, "reach", counted)
        watches = await asyncio.gather(*(watch(door, token) for _ in range(50)))
        assert agent.serving == 50
        # Round 0 replaces what was taken and learns how many wait; round 1 is for all of those.
        assert set(rounds[:50]) <= {0, 1}
        assert agent._demand.target > 30
        for _, writer in watches:
            writer.close()


async def test_an_agent_that_is_drained_finds_a_new_place_before_it_lets_go(door, echo, eventually):
    token = await door.member()
    async with door.agent("prod", echo.address) as agent:
        old = set(agent._engine.sessions)
        door.tunnels.drain()
        await eventually(lambda: "about to stop" in agent.last_error)
        # There is no other process here: what it has is kept, and serves.
        assert agent.connected == 2
        assert (await door.get(POD, token)).status == 200
        door.tunnels.draining = False
        door.tunnels.worker = "the-next-process"
        await eventually(lambda: len(agent._engine.sessions - old) == 2, 20)
        door.tunnels.draining = True
        await eventually(lambda: not (agent._engine.sessions & old), 10)
        assert (await door.get(POD, token)).status == 200


async def test_hub_process_that_is_silent_loses_all_its_connections_at_the_agent(door, echo, eventually, monkeypatch):
    token = await door.member()
    async with door.agent("prod", echo.address) as agent:
        reader, writer = await watch(door, token)
        before = set(agent._engine.sessions)
        monkeypatch.setattr("libs.common.relay.sockets.silent_for_s", lambda _transport: 9.0)
        monkeypatch.setattr(tunnel, "WORKER_SILENCE_S", -1.0)
        await eventually(lambda: not (before & agent._engine.sessions))
        monkeypatch.undo()
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await eventually(lambda: agent.connected == 2)


async def test_websocket_carries_everything_where_nothing_else_passes(door, echo, eventually, monkeypatch):
    token = await door.member()
    monkeypatch.setattr("services.auth_proxy.agent_route._SWITCH", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    async with door.agent("prod", echo.address) as agent:
        assert agent.carrier == "websocket"
        assert agent.last_error == ""
        assert (await door.get(POD, token)).status == 200
        await echo_stream(door, token, secrets.token_bytes(3_000_000))
        # It comes back by itself, by the carrier that worked, without asking for the other one again.
        tried = []
        real = reach.ask_for_switch

        async def noted(connection, hub, carrier):
            tried.append(carrier)
            await real(connection, hub, carrier)

        monkeypatch.setattr(reach, "ask_for_switch", noted)
        for session in list(agent._engine.sessions):
            session.transport.abort()
        await eventually(lambda: tried and agent.connected == 2)
        assert set(tried) == {"websocket"}
        assert (await door.get(POD, token)).status == 200


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


@pytest.mark.parametrize("door", [{"tunnel_wait_s": 30.0}], indirect=True)
async def test_surplus_connections_are_given_up_in_answer_to_a_ping(door, echo, eventually, monkeypatch):
    monkeypatch.setattr(tunnel, "PING_EVERY_S", 0.3)
    monkeypatch.setattr(dial, "_SURPLUS_S", 0.5)
    monkeypatch.setattr(demand, "PERIOD_S", 0.5)
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
    transport, protocol = await connect(hub, Handshake)
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
        await connect(hub, Handshake)


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
