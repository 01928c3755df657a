"""Which calls are sessions, which are recorded, and what becomes of one that can't be. A scripted cluster, an in-memory log."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from integration.recording.captures import Capture
from libs.common import errors
from libs.common.recording import writer as writing
from libs.common.recording.events import RESIZE, STDIN, STDOUT
from libs.common.relay.head import parse_request
from services.auth_proxy.recording import Recorder
from services.auth_proxy.recording_policy import Session, check_recordable, find_session
from tests.recording.made import ID, NOW, SIGNER, facts, open_all
from tests.recording.memory import MemoryLog
from tests.recording.reading import capture
from tests.relay.conftest import make_rig, read_head

__all__ = ["make_rig"]

POD = b"/api/v1/namespaces/web/pods/front-1/"


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (POD + b"exec?command=sh&command=-c&command=echo%20hi&container=c&stdin=true&tty=true&stdout=true",
         Session("exec", "web", "front-1", "c", ["sh", "-c", "echo hi"], tty=True, stdin=True)),
        (POD + b"attach?stdin=false&tty=0", Session("attach", "web", "front-1")),
        (POD + b"%65xec?command=a+b", Session("exec", "web", "front-1", "", ["a b"])),
        (POD[:-1] + b"%2Fexec", Session("exec", "web", "front-1")),
        (POD + b"exec/", Session("exec", "web", "front-1")),
        (b"/api/v1/nodes/n1/proxy/exec/web/front-1/c?command=id&input=1", Session("exec", "web", "front-1", "c", ["id"], stdin=True)),
        (b"/api/v1/nodes/n1/proxy/exec/web/front-1/uid/c", Session("exec", "web", "front-1", "c")),
        (b"/api/v1/proxy/nodes/n1/attach/web/front-1/c", Session("attach", "web", "front-1", "c")),
        (POD + b"portforward?ports=80", None),
        (POD + b"log?follow=true", None),
        (b"/api/v1/namespaces/web/pods/exec", None),
        (b"/apis/apps/v1/namespaces/web/pods/x/exec", None),
        (b"/api/v1/namespaces/web/services/x/proxy/exec", None),
    ],
)  # fmt: skip
def test_sessions_are_found_by_their_path_however_it_is_written(target, found):
    assert find_session(target) == found


@pytest.mark.parametrize(
    ("offered", "good"),
    [
        ([b"v5.channel.k8s.io"], True),
        ([b"v4.channel.k8s.io, base64.channel.k8s.io"], True),
        ([b"base64.channel.k8s.io"], False),
        ([b"channel.k8s.io", b"v5.channel.k8s.io"], False),
        ([], False),
    ],
)
def test_a_client_whose_protocol_nobody_reads_is_refused_before_anything_runs(offered, good):
    lines = b"".join(b"Sec-WebSocket-Protocol: %s\r\n" % value for value in offered)
    head = parse_request(
        b"GET %sexec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%s\r\n" % (POD, lines)
    )
    if good:
        check_recordable(head)
    else:
        with pytest.raises(errors.BadRequest, match="newer client"):
            check_recordable(head)


# ── a recorded relay ──


class Recording:
    """A recorder over a log in memory, and the relay of one rig wrapped by it."""

    def __init__(self, make_rig):
        self.log = MemoryLog()
        self.recorder = Recorder(self.log, SIGNER, lambda: NOW)
        self._make_rig = make_rig

    async def rig(self, script, **more):
        return await self._make_rig(script, wrap=lambda relay: self.recorder.wrap(relay, facts(**more)))

    def read(self):
        return open_all([part.data for part in self.log.parts], ID)

    async def ended(self):
        await self.recorder.drain()
        assert self.recorder.open == 0
        return self.read()


@pytest.fixture
async def recording(make_rig, monkeypatch):
    monkeypatch.setattr(writing, "FLUSH_S", 0.01)
    monkeypatch.setattr(writing, "PATIENCE_S", 0.1)
    monkeypatch.setattr(writing, "_PAUSE_S", 0.01)
    made = Recording(make_rig)
    task = asyncio.create_task(made.recorder.run(), name="recordings")
    await asyncio.sleep(0)
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def request(read: Capture) -> bytes:
    upgrade = read.head["upgrade"]
    more = "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n" if upgrade == "websocket" else ""
    return f"POST /exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n{more}\r\n".encode()


def switched(read: Capture) -> bytes:
    names = (("upgrade", "Upgrade"), ("sec-websocket-protocol", "Sec-WebSocket-Protocol"), ("x-stream-protocol-version", "X-Stream-Protocol-Version"))  # fmt: skip
    lines = [f"{name}: {read.head[key]}\r\n" for key, name in names if read.head[key]]
    return ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n" + "".join(lines) + "\r\n").encode()


def sides(read: Capture) -> tuple[bytes, bytes]:
    return (
        b"".join(data for from_client, data in read.chunks if from_client),
        b"".join(data for from_client, data in read.chunks if not from_client),
    )


def play(read: Capture):
    """A far side that switches, takes all that the client of the capture said, and answers as the cluster did."""
    sent, answered = sides(read)

    async def script(reader, writer):
        await read_head(reader)
        writer.write(switched(read))
        if sent:
            assert await reader.readexactly(len(sent)) == sent
        writer.write(answered)

    return script


@pytest.mark.parametrize("carrier", ["websocket", "spdy"])
@pytest.mark.parametrize("typed", [False, True])
async def test_a_session_passes_unchanged_and_is_stored(recording, carrier, typed):
    read = capture(f"{carrier}-terminal")
    sent, answered = sides(read)
    rig = await recording.rig(play(read), input_recorded=typed)
    assert (await rig.talk(request(read) + sent)).endswith(answered)
    opener, events = await recording.ended()
    assert opener.outcome.exit_code == 3
    assert opener.outcome.http_status == 101
    assert [e.data for e in events if e.channel == RESIZE] == [b"80x24", b"100x30"]
    assert (b"hunter2-typed" in b"".join(e.data for e in events)) is typed
    assert any(e.channel == STDIN for e in events) is typed
    assert b"30 100" in b"".join(e.data for e in events if e.channel == STDOUT)


async def test_no_session_begins_while_its_recording_can_not(recording):
    recording.log.away = True
    reached = []

    async def script(reader, writer):
        reached.append(await read_head(reader))

    rig = await recording.rig(script)
    reply = await rig.talk(request(capture("spdy-plain")))
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"this session has to be recorded" in reply
    assert reached == []


async def test_a_stream_that_can_not_be_read_is_not_passed_on(recording):
    read = capture("websocket-plain")

    async def script(reader, writer):
        await read_head(reader)
        writer.write(switched(read) + b"\x82\x05\x01good" + b"\x82\x05\x09evil")

    rig = await recording.rig(script)
    reply = await rig.talk(request(read))
    assert b"evil" not in reply
    opener, _ = await recording.ended()
    assert "channel 9" in opener.outcome.message


async def test_a_protocol_that_nobody_reads_is_a_status_and_no_switch(recording):
    read = replace(capture("websocket-plain"))
    read.head = read.head | {"sec-websocket-protocol": "base64.channel.k8s.io"}
    rig = await recording.rig(play(read))
    reply = await rig.talk(request(read))
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert b"101 Switching" not in reply


@pytest.mark.parametrize("carrier", ["websocket", "spdy"])
async def test_a_log_that_goes_away_ends_the_session_with_its_reason_last(recording, carrier):
    read = capture(f"{carrier}-plain")
    opening = b"".join(data for from_client, data in read.chunks if from_client)
    cut = asyncio.Event()

    async def script(reader, writer):
        await read_head(reader)
        writer.write(switched(read))
        assert await reader.readexactly(len(opening)) == opening
        recording.log.away = True
        writer.write(b"\x82\x07\x01output" if carrier == "websocket" else sides(read)[1])
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        cut.set()

    rig = await recording.rig(script)
    reply = await rig.talk(request(read) + opening)
    async with asyncio.timeout(5):
        await cut.wait()
    assert b"can't be recorded any more" in reply
    opener, _ = await recording.ended()
    assert opener.outcome is None


async def test_a_session_that_is_quicker_than_the_log_is_slowed_down_and_loses_nothing(recording):
    read = capture("websocket-plain")
    whole = 4 * 1024 * 1024
    frame = b"\x82\x7e\x40\x01\x01" + b"x" * 0x4000

    async def script(reader, writer):
        await read_head(reader)
        writer.write(switched(read))
        for _ in range(whole // 0x4000):
            writer.write(frame)
            await writer.drain()

    rig = await recording.rig(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request(read))
    await reader.readuntil(b"\r\n\r\n")
    recording.log.gate.clear()
    came = 0
    while data := await read_soon(reader):
        came += len(data)
    stored = sum(len(event.data) for event in recording.read()[1])
    ahead = came - stored
    recording.log.gate.set()
    async with asyncio.timeout(20):
        while data := await reader.read(65536):
            came += len(data)
    writer.close()
    assert writing.HOLD_BYTES // 2 <= ahead < writing.MAX_WAITING
    assert came == whole // 0x4000 * len(frame)
    opener, events = await recording.ended()
    assert sum(len(event.data) for event in events) == whole
    assert opener.outcome.output_bytes == whole


async def read_soon(reader) -> bytes:
    """What comes within half a second; nothing where the other side is held."""
    try:
        async with asyncio.timeout(0.5):
            return await reader.read(65536)
    except TimeoutError:
        return b""


async def test_a_client_that_leaves_while_the_head_is_stored_begins_no_session(recording, eventually):
    reached = []

    async def script(reader, writer):
        reached.append(await read_head(reader))

    rig = await recording.rig(script)
    recording.log.gate.clear()
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request(capture("spdy-plain")))
    await recording.log.attempted(1)
    writer.close()
    await writer.wait_closed()
    await eventually(lambda: not rig.engine.sessions)
    recording.log.gate.set()
    await recording.recorder.drain()
    assert recording.recorder.open == 0
    assert reached == []


async def test_an_answer_that_is_no_switch_passes_and_is_told(recording):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone")

    rig = await recording.rig(script)
    assert b"gone" in await rig.talk(request(capture("spdy-plain")))
    opener, events = await recording.ended()
    assert (opener.outcome.http_status, events) == (404, [])
