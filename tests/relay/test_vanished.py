"""A client that vanished is let go of; one that only does not read is not."""

from __future__ import annotations

import asyncio
import socket

from libs.common.relay import sockets, vanished
from libs.common.relay.server import Limits
from tests.relay.conftest import read_head

FLOOD = 8 * 2**20


async def flood(reader, writer):
    await read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % FLOOD)
    writer.write(b"x" * FLOOD)
    await writer.drain()
    await reader.read()


def silent_client(port: int) -> socket.socket:
    """It asks, and reads nothing."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"GET /api HTTP/1.1\r\nHost: h\r\n\r\n")
    return client


async def test_a_client_whose_kernel_is_not_heard_of_is_cut(make_rig, monkeypatch, eventually):
    rig = await make_rig(flood)
    with silent_client(rig.port):
        await eventually(lambda: any(s.write_paused for s in rig.engine.sessions))
        monkeypatch.setattr(sockets, "unheard_for_s", lambda _transport: 30.0)
        await eventually(lambda: not rig.engine.sessions)


async def test_a_client_that_reads_nothing_is_heard_of_and_stays(make_rig, eventually):
    rig = await make_rig(flood, body_limits=Limits(vanished_s=0.5))
    with silent_client(rig.port):
        await eventually(lambda: any(s.write_paused for s in rig.engine.sessions))
        await asyncio.sleep(1.5)
        assert rig.engine.sessions


async def test_many_sessions_are_looked_at_in_turn(make_rig, monkeypatch, eventually):
    monkeypatch.setattr(vanished, "AT_A_TIME", 1)
    rig = await make_rig(flood)
    clients = [silent_client(rig.port) for _ in range(3)]
    try:
        await eventually(lambda: sum(s.write_paused for s in rig.engine.sessions) == 3)
        monkeypatch.setattr(sockets, "unheard_for_s", lambda _transport: 30.0)
        await eventually(lambda: not rig.engine.sessions, 10)
    finally:
        for client in clients:
            client.close()
