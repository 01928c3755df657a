"""An engine comes to its end: what rests, what runs, what streams, what switched protocols."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from libs.common.relay import drain
from libs.common.relay.drain import Ending
from tests.relay.conftest import answer, read_head

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def ends(head):
    return Ending.BETWEEN_CHUNKS if b"watch" in head.target else Ending.CUT if b"bus" in head.target else Ending.FINISH


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(drain, "_TICK_S", 0.02)
    monkeypatch.setattr(drain, "_YOUNG_S", 0.1)


async def echo(reader, writer):
    while True:
        head = await read_head(reader)
        if b"watch" in head:
            writer.write(CHUNKED + b"7\r\nevent 1\r\n")
            if b"torn" in head:
                writer.write(b"ff\r\nhalf an event")
            await reader.read()
            return
        if b"Upgrade: SPDY" in head:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
            while data := await reader.read(100):
                writer.write(data)
            return
        if b"slow" in head:
            await asyncio.sleep(0.3)
        writer.write(answer())


@contextlib.asynccontextmanager
async def stopping(rig, **options):
    task = asyncio.create_task(rig.engine.stop(**options))
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        await task


async def test_a_resting_connection_gets_an_answer_to_its_next_request_and_is_told_to_go(make_rig):
    rig = await make_rig(echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(GET)
    assert b"Connection: close" not in await reader.readuntil(b"ok")
    async with stopping(rig, grace_s=5, rest_s=5):
        writer.write(GET)
        last = await reader.read()
        assert last.startswith(b"HTTP/1.1 200")
        assert b"Connection: close\r\n" in last
        writer.close()


async def test_a_connection_that_came_just_before_gets_its_answer(make_rig):
    rig = await make_rig(echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    async with stopping(rig, grace_s=5, rest_s=5):
        late, late_writer = await asyncio.open_connection("127.0.0.1", rig.port)
        for r, w in ((reader, writer), (late, late_writer)):
            w.write(GET)
            assert (await r.read()).endswith(b"ok")
            w.close()


async def test_a_connection_that_goes_on_resting_is_closed_after_a_while(make_rig):
    rig = await make_rig(echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(GET)
    await reader.readuntil(b"ok")
    began = asyncio.get_running_loop().time()
    async with stopping(rig, grace_s=10, rest_s=0.6):
        assert await reader.read() == b""
    assert 0.25 < asyncio.get_running_loop().time() - began < 5
    writer.close()


async def test_a_short_request_that_runs_is_finished(make_rig):
    rig = await make_rig(echo)
    talk = asyncio.create_task(rig.talk(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"))
    await asyncio.sleep(0.1)
    async with stopping(rig, grace_s=5, rest_s=1, ends=ends):
        assert (await talk).endswith(b"ok")


async def test_a_watch_ends_with_the_last_chunk_and_not_before_it_is_of_age(make_rig):
    rig = await make_rig(echo)
    began = asyncio.get_running_loop().time()
    talk = asyncio.create_task(rig.talk(b"GET /watch HTTP/1.1\r\nHost: x\r\n\r\n"))
    await asyncio.sleep(0.05)
    async with stopping(rig, grace_s=1.0, rest_s=1, ends=ends):
        raw = await talk
    assert raw.endswith(b"7\r\nevent 1\r\n0\r\n\r\n")
    assert 0.1 <= asyncio.get_running_loop().time() - began < 5


async def test_a_watch_in_the_middle_of_a_chunk_is_torn_at_the_end_and_never_made_to_look_whole(make_rig):
    rig = await make_rig(echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"GET /watch/torn HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"half an event")
    async with stopping(rig, grace_s=0.5, rest_s=0.2, ends=ends):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_many_watches_end_spread_over_the_window(make_rig):
    rig = await make_rig(echo)
    talks = [asyncio.create_task(rig.talk(b"GET /watch HTTP/1.1\r\nHost: x\r\n\r\n", timeout_s=20)) for _ in range(30)]
    for _ in range(300):
        if sum(1 for s in rig.engine.sessions if s.exchange is not None) == 30:
            break
        await asyncio.sleep(0.01)
    loop = asyncio.get_running_loop()
    ended = []
    for talk in talks:
        talk.add_done_callback(lambda _: ended.append(loop.time()))
    async with stopping(rig, grace_s=2.0, rest_s=1, ends=ends):
        for raw in await asyncio.gather(*talks):
            assert raw.endswith(b"0\r\n\r\n")
    assert max(ended) - min(ended) > 0.5


async def test_a_switched_stream_lives_to_the_end_and_one_that_is_dialled_again_does_not(make_rig):
    rig = await make_rig(echo)
    opened = []
    for path in (b"/exec", b"/bus"):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        opened.append((reader, writer))
    (shell, to_shell), (bus, to_bus) = opened
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with stopping(rig, grace_s=1.2, rest_s=0.2, ends=ends):
        with contextlib.suppress(ConnectionError):
            await bus.read()
        assert loop.time() - began < 1.1
        to_shell.write(b"ls")
        assert await shell.readexactly(2) == b"ls"
        with contextlib.suppress(ConnectionError):
            await shell.read()
        assert loop.time() - began >= 1.0
    to_shell.close()
    to_bus.close()
