"""The registry of reverse connections on values and socket pairs: order of use, waiting, pings, instances."""

from __future__ import annotations

import asyncio
import socket

import pytest

from libs.common import errors
from libs.common.relay import tunnel
from services.auth_proxy.clusters import ClusterFact
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

    async def add(instance="instance-1"):
        near, far = socket.socketpair()
        near.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=far)
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
        source = tunnels.source(FACT)
        source.admit(instance)
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
    assert await far.reader.readuntil(b"\r\n\r\n") == tunnel.PING
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
    assert [c.instance for c in source.idle] == ["instance-2"]
    with pytest.raises(errors.Conflict, match="two agents run with one identity"):
        source.admit("instance-1")
    source.put_back(busy)  # what the old one still served is let finish, then closed
    assert source.connected == 1
    source.idle[0].close()
    with pytest.raises(errors.Conflict):
        source.admit("instance-1")
    monkeypatch.setattr("services.auth_proxy.tunnels._RECENT_S", -1.0)
    source.admit("instance-1")


async def test_whoever_subscribed_hears_each_change_of_presence(rig):
    tunnels, add = rig
    heard = []
    tunnels.subscribe(lambda uid, connected: heard.append((uid, connected)))
    await add()
    await add()
    tunnels.drop(FACT.uid)
    assert heard == [("uid-1", 1), ("uid-1", 2), ("uid-1", 1), ("uid-1", 0)]
