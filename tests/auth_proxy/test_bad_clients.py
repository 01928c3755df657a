"""Clients that are slow, silent, too many, or gone: each costs little, is let go in time, and keeps nobody else out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json

import pytest

from libs.common.relay import exchange
from libs.common.relay.server import Limits
from services.auth_proxy import main
from tests.auth_proxy.bad_upstream import GOOD, says
from tests.auth_proxy.door import open_door
from tests.auth_proxy.recorder import read_reply

HEAD_S = 0.5
SLACK_S = 3.0
PATH = "/k8s/clusters/prod/api/v1/x"


@pytest.fixture
async def quick_door(tmp_path, monkeypatch):
    """A door with little patience and room for few."""
    monkeypatch.setattr(main, "Limits", functools.partial(Limits, head_s=HEAD_S))
    async with open_door(tmp_path, tunnel_wait_s=1.0, max_connections=12) as opened:
        yield opened


async def ends(reader):
    """All that comes until the connection ends, with a limit."""
    raw = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(HEAD_S + SLACK_S):
            while piece := await reader.read(65536):
                raw += piece
    return raw


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: "])
async def test_head_that_does_not_come_ends_the_connection_in_time(quick_door, sent):
    reader, writer = await quick_door.connect()
    writer.write(sent)
    raw = await ends(reader)
    assert raw.startswith(b"HTTP/1.1 408 ") if sent else not raw
    writer.close()


async def test_head_that_trickles_is_given_no_more_time(quick_door):
    reader, writer = await quick_door.connect()
    ended = asyncio.ensure_future(ends(reader))
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100:
        if ended.done():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)
    assert (await ended).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_body_that_does_not_come_is_408_and_frees_the_agents_connection(door, monkeypatch, bad, eventually):
    monkeypatch.setattr(exchange, "_BODY_IDLE_S", 0.3)
    token = await door.member()
    bad.way = says(b"")
    async with door.agent("prod", bad.address) as agent:
        reader, writer = await door.connect()
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\nAuthorization: Bearer {token}\r\n\r\nab".encode()
        )
        async with asyncio.timeout(5):
            reply = await read_reply(reader)
        assert reply.status == 408
        assert json.loads(reply.body)["kind"] == "Status"
        writer.close()
        await eventually(lambda: not agent.serving)


@pytest.mark.parametrize("when", ["before the answer", "in the body of the request", "in the answer"])
async def test_client_that_leaves_takes_its_call_with_it(door, when, bad, eventually):
    token = await door.member()
    gone = asyncio.Event()

    async def way(reader, writer):
        if when == "in the answer":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nabc")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        gone.set()

    bad.way = way
    async with door.agent("prod", bad.address) as agent:
        reader, writer = await door.connect()
        length = 900 if when == "in the body of the request" else 0
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        if when == "in the answer":
            async with asyncio.timeout(5):
                await reader.readuntil(b"abc")
        else:
            await eventually(lambda: bad.heads)
        writer.transport.abort()
        async with asyncio.timeout(5):
            await gone.wait()
        await eventually(lambda: not agent.serving)


async def test_client_that_never_reads_holds_its_own_server_and_no_memory(door, bad, eventually):
    token = await door.member()
    sent = 0

    async def endless(reader, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"a" * 65536)
            sent += 65536
            await writer.drain()

    bad.way = endless
    async with door.agent("prod", bad.address) as agent:
        _, writer = await door.connect()
        writer.transport.pause_reading()
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.5)
        # Two hops with a write buffer of 256 KiB each, and what the kernel holds for three connections.
        assert 0 < sent < 64_000_000
        assert (await door.get("/k8s/clusters/prod/well", token)).body == b"ok"
        writer.transport.abort()
        await eventually(lambda: not agent.serving)


async def test_more_connections_than_there_is_room_for_are_closed_and_the_rest_is_served(quick_door, bad):
    """Agents' connections count too; who is inside is not thrown out."""
    token = await quick_door.member()
    bad.way = says(GOOD)
    async with quick_door.agent("prod", bad.address):
        inside = []
        for _ in range(40):
            with contextlib.suppress(ConnectionError):
                inside.append(await quick_door.connect())
        alive = [pair for pair in inside if not pair[0].at_eof()]
        reader, writer = alive[0]
        with contextlib.suppress(ConnectionError):
            writer.write(f"GET {PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            async with asyncio.timeout(5):
                assert (await read_reply(reader)).status == 200
        for _, writer in inside:
            writer.transport.abort()

        async def is_served():
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                return (await quick_door.get("/healthz")).status == 200
            return False

        async with asyncio.timeout(10):
            while not await is_served():  # noqa: ASYNC110 - the kernel says when
                await asyncio.sleep(0.05)


async def test_connections_that_never_begin_a_handshake_keep_nobody_out(door):
    """A thousand of them: the door goes on answering; each is let go after the time for the handshake."""
    idle = [await asyncio.open_connection("localhost", door.port) for _ in range(1000)]
    for _ in range(5):
        assert (await door.get("/healthz")).status == 200
    for _, writer in idle:
        writer.transport.abort()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\0" * 70_000,
        b"\x80\x2e\x01\x00\x02",
        b"SSH-2.0-x\r\n",
    ],
)
async def test_what_is_no_tls_is_closed(door, sent):
    reader, writer = await asyncio.open_connection("localhost", door.port)
    with contextlib.suppress(ConnectionError):
        writer.write(sent)
        async with asyncio.timeout(12):
            assert b"HTTP" not in await reader.read()
    writer.close()
    assert (await door.get("/healthz")).status == 200
