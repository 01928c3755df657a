"""A wire that is cut in silence: both ends notice within ten seconds, streams end, and the agent comes back. And a reader that pauses."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import pytest
import uvloop

from integration.tunnel import network
from integration.tunnel.agent import FLOOD_BYTES
from libs.common.relay import rebuild
from libs.common.relay.decision import Relay
from libs.common.relay.pool import Address, Pool
from libs.common.relay.server import Engine, Limits, listen
from libs.common.relay.sweeper import Sweeper
from services.auth_proxy import agent_route
from tests.auth_proxy.door import Door, open_door

pytestmark = [
    pytest.mark.skipif(bool(network.why_not()), reason=network.why_not()),
    pytest.mark.timeout(180),
]
POD = "/k8s/clusters/prod/api/v1/pods"
NOTICED_S = 10.0
LOADED_S = 3.0
"""What a loaded machine may add."""
REFUSES_PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


def settings(door: Door, here: str) -> dict[str, str]:
    return {
        "hub": f"https://{here}:{door.port}",
        "ca": str(door.ca_file),
        "seed": door.keys["prod"].seed.decode(),
        "uid": door.uids["cluster/prod"],
    }


async def begin(
    door: Door, request: str, token: str, first: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await door.connect()
    writer.write(f"{request}\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    async with asyncio.timeout(20):
        await reader.readuntil(first)
    return reader, writer


async def gone(door: Door, timeout_s: float) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    none_left = asyncio.Event()
    door.tunnels.subscribe(lambda _uid, connected: connected or none_left.set())
    async with asyncio.timeout(timeout_s):
        await none_left.wait()
    return loop.time() - started


async def ended(reader: asyncio.StreamReader, timeout_s: float) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.timeout(timeout_s):
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
    return loop.time() - started


@pytest.mark.parametrize("carrier", ["plain", "websocket"])
async def test_both_ends_notice_a_silent_cut_and_the_agent_comes_back(tmp_path, monkeypatch, record_property, carrier):
    if carrier == "websocket":
        monkeypatch.setattr(agent_route, "_SWITCH", REFUSES_PLAIN)
    async with (
        network.elsewhere() as away,
        open_door(tmp_path, listen="0.0.0.0:0", tunnel_wait_s=1.0) as door,
    ):
        token = await door.member()
        async with network.agent(away.name, settings(door, away.here)) as agent:
            await agent.reaches(4, 30)
            assert agent.carrier == carrier
            watch, watch_writer = await begin(door, f"GET {POD}?watch=true HTTP/1.1", token, b"event")
            stream, stream_writer = await begin(
                door, f"POST {POD}/x/exec HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1", token, b"\r\n\r\n"
            )
            await agent.reaches(4, 10)
            await away.cut()
            stream_writer.write(b"into the void")
            limit_s = NOTICED_S + LOADED_S
            took = await asyncio.gather(
                gone(door, limit_s), agent.reaches(0, limit_s), ended(watch, limit_s), ended(stream, limit_s)
            )
            record_property("noticed_s", took)
            print("hub, agent, watch, stream noticed after", [round(s, 1) for s in took])
            assert (await door.get(POD, token)).status == 503
            await asyncio.sleep(2)
            await away.mend()
            back_s = await agent.reaches(1, 12)
            print("back after", round(back_s, 1))
            assert agent.carrier == carrier
            # Asked for at once, it waits for a connection that is about to come.
            assert (await door.get(POD, token)).status == 200
            for writer in (watch_writer, stream_writer):
                writer.close()


async def test_reader_that_pauses_for_longer_than_any_timer_gets_every_byte(tmp_path):
    """`kubectl logs -f | less`: the window is closed for 45 s in both legs; the peer answers window probes, so nothing is wrong."""
    async with network.elsewhere() as away, open_door(tmp_path, listen="0.0.0.0:0") as door:
        token = await door.member()
        async with network.agent(away.name, settings(door, away.here)) as agent:
            await agent.reaches(4, 30)
            reader, writer = await begin(door, f"GET {POD}?flood=true HTTP/1.1", token, b"\r\n\r\n")
            await asyncio.sleep(45)
            got = 0
            async with asyncio.timeout(60):
                while got < FLOOD_BYTES:
                    data = await reader.read(1 << 20)
                    assert data, f"the answer was cut after {got} bytes"
                    got += len(data)
            writer.close()
            assert agent.connected >= 4


READER = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"GET / HTTP/1.1\\r\\nHost: h\\r\\n\\r\\n")
while True:
    s.recv(65536)
"""


async def test_a_client_that_vanished_in_the_middle_of_a_stream_is_noticed():
    """The kernel alone would go on for a quarter of an hour."""

    async def ticking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"5\r\nevent\r\n")
            await asyncio.sleep(0.2)
        ticked.set()

    ticked = asyncio.Event()
    upstream = await asyncio.start_server(ticking, "127.0.0.1", 0)
    busy, closed = asyncio.Event(), asyncio.Event()
    sweeper = Sweeper()
    pool = Pool(lambda: Address("the server", "127.0.0.1", upstream.sockets[0].getsockname()[1]), sweeper=sweeper)
    engine = Engine(
        lambda head, _session: Relay(
            pool, rebuild.request_head(head, head.target, allowed=frozenset(), host=b"up"),
            lambda answer, close: rebuild.response_head(answer, close=close),
        ),
        limits=Limits(vanished_s=3.0), sweeper=sweeper, on_busy=lambda _session: busy.set(), on_closed=lambda _session: closed.set(),
    )  # fmt: skip
    front = await listen(engine, "0.0.0.0", 0, None)
    loop = asyncio.get_running_loop()
    try:
        async with network.elsewhere() as away, client(away, front.sockets[0].getsockname()[1]):
            async with asyncio.timeout(20):
                await busy.wait()
            await asyncio.sleep(1)
            await away.cut()
            started = loop.time()
            async with asyncio.timeout(3 + 4 + LOADED_S):
                await closed.wait()
            assert loop.time() - started >= 2
    finally:
        front.close()
        await engine.stop(grace_s=0.1)
        pool.close()
        upstream.close()
        async with asyncio.timeout(LOADED_S):
            await ticked.wait()


@contextlib.asynccontextmanager
async def client(away: network.Elsewhere, port: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", away.name, sys.executable, "-c", READER, away.here, str(port)
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()
