"""The registry of reverse connections on values and socket pairs: order of use, waiting, pings, instances."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest

from libs.common import errors
from libs.common.relay import tunnel
from services.auth_proxy.cluster_tunnels import TunnelLimits
from services.auth_proxy.clusters import ClusterFact
from services.auth_proxy.instances import Claim
from services.auth_proxy.tunnels import LocalTunnels

FACT = ClusterFact("prod", "uid-1", "UKEY", None)


class Far:
    """The agent's end of a connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer


@pytest.fixture
async def rig(clock):
    tunnels = LocalTunnels(0.3, clock)
    ends = []

    async def add(instance="instance-1", kube_system=""):
        near, far = socket.socketpair()
        near.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=far)
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
        source = tunnels.source(FACT)
        source.admit(Claim(instance, kube_system))
        source.add(instance, transport)
        ends.append(writer)
        return Far(reader, writer)

    yield tunnels, add
    tunnels.close()
    for writer in ends:
        writer.close()
    await asyncio.sleep(0.01)


async def test_newest_connection_is_used_first(rig):
    tunnels, add = rig
    await add()
    await add()
    source = tunnels.source(FACT)
    first, second = source.idle
    assert source.acquire() is second
    assert source.acquire() is first
    assert source.acquire() is None


async def test_waiting_request_gets_the_next_free_connection_in_order(rig):
    tunnels, add = rig
    await add()
    source = tunnels.source(FACT)
    taken = source.acquire()
    waiting = [asyncio.create_task(source.open()) for _ in range(2)]
    await asyncio.sleep(0)
    source.put_back(taken)
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert done == {waiting[0]}
    source.put_back(waiting[0].result())
    assert await waiting[1] is taken


async def test_connection_that_was_given_to_a_cancelled_request_is_not_lost(rig):
    tunnels, add = rig
    await add()
    source = tunnels.source(FACT)
    taken = source.acquire()
    waiting = asyncio.create_task(source.open())
    await asyncio.sleep(0)
    source.put_back(taken)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert source.idle == [taken]


async def test_all_in_use_is_503_with_a_short_retry_and_none_there_is_without(rig):
    tunnels, add = rig
    await add()
    source = tunnels.source(FACT)
    connection = source.acquire()
    with pytest.raises(errors.Unavailable, match="are in use") as caught:
        await source.open()
    assert caught.value.retry_after_s == 1
    connection.close()
    with pytest.raises(errors.Unavailable, match="is not connected since 2026-01-02T03:04:05Z") as caught:
        await source.open()
    assert caught.value.retry_after_s is None


async def test_connection_that_does_not_answer_a_ping_is_closed_and_never_used_meanwhile(rig):
    tunnels, add = rig
    far = await add()
    source = tunnels.source(FACT)
    now = asyncio.get_running_loop().time() + 2
    tunnels.tick(now)
    assert await far.reader.readuntil(b"\r\n\r\n") == tunnel.ping("", drain=False)
    assert source.acquire() is None
    tunnels.tick(now + tunnel.PING_TIMEOUT_S - 0.1)
    assert source.connected == 1
    tunnels.tick(now + tunnel.PING_TIMEOUT_S + 0.1)
    assert source.connected == 0


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.1 204 No Content\r\n\r\nmore", False),
        (b"nonsense\r\n\r\n", False),
        (b"x" * 5000, False),
    ],
)
async def test_answer_to_a_ping_decides(rig, eventually, answer, kept):
    tunnels, add = rig
    far = await add()
    source = tunnels.source(FACT)
    tunnels.tick(asyncio.get_running_loop().time() + 2)
    far.writer.write(answer)
    await eventually(lambda: source.idle or not source.connected)
    assert source.connected == int(kept)


async def test_agent_that_speaks_unasked_is_closed(rig, eventually):
    tunnels, add = rig
    far = await add()
    far.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await eventually(lambda: not tunnels.source(FACT).connected)


async def test_newest_instance_wins_and_the_old_one_may_return_after_it_left(rig, monkeypatch):
    tunnels, add = rig
    await add("instance-1")
    busy = tunnels.source(FACT).acquire()
    await add("instance-1")
    await add("instance-2")
    source = tunnels.source(FACT)
    assert [c.instance.name for c in source.idle] == ["instance-2"]
    with pytest.raises(errors.Conflict, match="two agents run with one identity"):
        source.admit(Claim("instance-1"))
    source.put_back(busy)  # what the old one still served is let finish, then closed
    assert source.connected == 1
    source.idle[0].close()
    with pytest.raises(errors.Conflict):
        source.admit(Claim("instance-1"))
    monkeypatch.setattr("services.auth_proxy.cluster_tunnels._RECENT_S", -1.0)
    source.admit(Claim("instance-1"))


async def test_whoever_subscribed_hears_each_change_of_presence(rig):
    tunnels, add = rig
    heard = []
    tunnels.subscribe(lambda uid, connected: heard.append((uid, connected)))
    await add()
    await add()
    tunnels.drop(FACT.uid)
    assert heard == [("uid-1", 1), ("uid-1", 2), ("uid-1", 1), ("uid-1", 0)]


async def test_requests_go_to_the_agent_with_least_to_do(rig):
    tunnels, add = rig
    for instance in ("instance-1", "instance-1", "instance-1", "instance-2", "instance-2"):
        await add(instance, "ks")
    source = tunnels.source(FACT)
    taken = [source.acquire().instance.name for _ in range(5)]
    assert taken == ["instance-1", "instance-2", "instance-1", "instance-2", "instance-1"]


async def test_no_more_than_eight_agents_serve_one_cluster(rig):
    tunnels, add = rig
    for number in range(8):
        await add(f"instance-{number}", "ks")
    with pytest.raises(errors.Conflict, match="8 agents serve"):
        tunnels.cluster(FACT).admit(Claim("instance-9", "ks"))
    tunnels.cluster(FACT).admit(Claim("instance-3", "ks"))


async def test_agents_that_do_not_say_which_cluster_is_theirs_replace_each_other(rig):
    tunnels, add = rig
    await add("instance-1", "ks")
    await add("instance-2", "")
    assert [i.name for i in tunnels.cluster(FACT).instances] == ["instance-2"]


@pytest.fixture
def few(clock):
    return TunnelLimits(wait_s=0.3, calls=2, spare=2)


async def test_calls_beyond_the_limit_of_a_cluster_are_429_and_streams_count_until_they_end(rig, few):
    tunnels, add = rig
    tunnels._limits = few
    for _ in range(3):
        await add()
    first, second = tunnels.source(FACT).acquire(), tunnels.source(FACT).acquire()
    with pytest.raises(errors.TooManyRequests, match="2 calls under way") as caught:
        tunnels.source(FACT)
    assert caught.value.retry_after_s == 1
    tunnels.cluster(FACT).put_back(first)
    tunnels.source(FACT)
    stream = second.leave()
    third = tunnels.source(FACT).acquire()
    with pytest.raises(errors.TooManyRequests):
        tunnels.source(FACT)
    stream.abort()
    tunnels.source(FACT)
    third.close()


async def test_connections_of_a_cluster_are_bounded(rig, few):
    tunnels, add = rig
    tunnels._limits = few
    for _ in range(4):
        await add()
    with pytest.raises(errors.Unavailable, match="4 connections already"):
        tunnels.cluster(FACT).admit(Claim("instance-1"))


class Conversation:
    """Whoever uses a connection; notes its end."""

    def __init__(self):
        self.ended = None

    def response_data(self, data):
        raise AssertionError

    def upstream_ended(self, error):
        self.ended = error

    def upstream_writable(self, writable):
        pass


async def test_silent_agent_loses_everything_and_whoever_waits_on_it_is_told(rig):
    tunnels, add = rig
    await add("instance-1", "ks")
    await add("instance-1", "ks")
    other = await add("instance-2", "ks")
    source = tunnels.source(FACT)
    first = next(c for c in source.idle if c.instance.name == "instance-1")
    first.instance.idle.remove(first)
    busy, stream = Conversation(), first.instance.take()
    first.begin(busy)
    spliced = stream.leave()
    now = asyncio.get_running_loop().time() + 2
    await add("instance-1", "ks")
    tunnels.tick(now)
    await other.reader.readuntil(b"\r\n\r\n")
    other.writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    await asyncio.sleep(0.05)
    tunnels.tick(now + tunnel.PING_TIMEOUT_S + 0.1)
    assert isinstance(busy.ended, ConnectionResetError)
    assert spliced.is_closing()
    assert [i.name for i in source.instances] == ["instance-2"]


async def test_each_agent_is_pinged_every_few_seconds_and_each_connection_now_and_then(rig):
    tunnels, add = rig
    ends = [await add() for _ in range(4)]
    start = asyncio.get_running_loop().time() + 2
    pinged = []
    for second in range(13):
        tunnels.tick(start + second)
        await asyncio.sleep(0.01)
        for number, far in enumerate(ends):
            if len(far.reader._buffer):
                await far.reader.readuntil(b"\r\n\r\n")
                far.writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                pinged.append((second, number))
        await asyncio.sleep(0.02)
    seconds = sorted({second for second, _ in pinged})
    assert max(b - a for a, b in itertools.pairwise(seconds)) <= 3
    assert {number for _, number in pinged} == {0, 1, 2, 3}
    assert len(pinged) <= 4 * 4


async def test_draining_pings_all_that_rests_and_says_so(rig):
    tunnels, add = rig
    tunnels.ca = "ab" * 32
    ends = [await add() for _ in range(2)]
    tunnels.drain()
    for far in ends:
        assert await far.reader.readuntil(b"\r\n\r\n") == tunnel.ping("ab" * 32, drain=True)
