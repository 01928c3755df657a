"""The WebSocket carrier over real sockets: bytes, back-pressure, control frames, and what breaks the rules."""

from __future__ import annotations

import asyncio
import secrets
import socket

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from libs.common.relay.websocket import MAX_RECEIVED, WebSocketTransport, accept_of

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


class Above(asyncio.Protocol):
    def __init__(self):
        self.data = bytearray()
        self.eof = False
        self.lost = asyncio.Event()
        self.error = None
        self.paused = False

    def data_received(self, data):
        assert isinstance(data, bytes)
        self.data += data

    def eof_received(self):
        self.eof = True
        return False

    def connection_lost(self, exc):
        self.error = exc
        self.lost.set()

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False


async def wrap(sock, *, client):
    sock.setblocking(False)
    below, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)
    above = Above()
    transport = WebSocketTransport(below, client=client)
    transport.set_protocol(above)
    return transport, above


@pytest.fixture
async def pair():
    one, other = socket.socketpair()
    hub, agent = await wrap(one, client=False), await wrap(other, client=True)
    yield hub, agent
    for transport, above in (hub, agent):
        transport.abort()
        await above.lost.wait()


@pytest.fixture
async def raw():
    """The hub's end, and a socket whose frames the test writes itself."""
    one, other = socket.socketpair()
    hub = await wrap(one, client=False)
    reader, writer = await asyncio.open_connection(sock=other)
    yield hub, reader, writer
    hub[0].abort()
    await hub[1].lost.wait()
    writer.close()


def frame(opcode, data=b"", *, fin=True, mask=True):
    return Frame(opcode, data, fin).serialize(mask=mask)


def test_key_is_answered_as_the_rfc_says():
    assert accept_of(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def test_bytes_arrive_as_they_were_whatever_their_number(pair, eventually):
    (hub, hub_above), (agent, agent_above) = pair
    sent = bytearray()
    for size in (0, 1, 125, 126, 65535, 65536, 65537, 300_000):
        data = secrets.token_bytes(size)
        sent += data
        hub.write(data)
        agent.write(data)
        await asyncio.sleep(0)
    await eventually(lambda: len(hub_above.data) == len(agent_above.data) == len(sent))
    assert bytes(hub_above.data) == bytes(agent_above.data) == bytes(sent)


async def test_reader_that_stops_stops_the_writer_and_memory_stays_bounded(pair, eventually):
    (hub, hub_above), (agent, agent_above) = pair
    agent.pause_reading()
    hub.set_write_buffer_limits(high=65536)
    written = 0
    while not hub_above.paused:
        hub.write(b"x" * 65536)
        written += 65536
        await asyncio.sleep(0)
        assert written < 8_000_000
    assert hub.get_write_buffer_size() < 300_000
    before = len(agent_above.data)
    await asyncio.sleep(0.05)
    assert len(agent_above.data) == before
    agent.resume_reading()
    await eventually(lambda: len(agent_above.data) == written)
    assert not hub_above.paused


async def test_close_is_clean_and_an_end_without_it_is_not(eventually):
    for clean in (True, False):
        one, other = socket.socketpair()
        (hub, hub_above), (agent, agent_above) = await wrap(one, client=False), await wrap(other, client=True)
        agent.write(b"last words")
        await eventually(lambda above=hub_above: above.data == b"last words")
        agent.close() if clean else agent.abort()
        await hub_above.lost.wait()
        assert (hub_above.error is None) == clean
        assert hub_above.eof == clean
        assert hub.is_closing()
        await agent_above.lost.wait()


async def test_pings_are_answered_between_the_fragments_of_a_message(raw, eventually):
    (_, above), reader, writer = raw
    writer.write(
        frame(Opcode.BINARY, b"one ", fin=False) + frame(Opcode.PING, b"hi") + frame(Opcode.CONT, b"two ", fin=False)
        + frame(Opcode.PONG, b"unasked") + frame(Opcode.CONT, b"three")
    )  # fmt: skip
    assert await reader.readexactly(4) == b"\x8a\x02hi"
    await eventually(lambda: above.data == b"one two three")


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(Opcode.BINARY, b"x", mask=False), 1002),
        (frame(Opcode.TEXT, b"x"), 1003),
        (frame(Opcode.CONT, b"x"), 1002),
        (b"\xc2\x80aaaa", 1002),
        (b"\x83\x80aaaa", 1002),
        (b"\x82\xff" + (MAX_RECEIVED + 1).to_bytes(8, "big") + b"aaaa", 1009),
        (b"\x82\xff" + (1 << 63).to_bytes(8, "big") + b"aaaa", 1009),
        (b"\x89\xfe\x00\x7e" + b"aaaa" + b"x" * 126, 1002),
    ],
)
async def test_frames_that_break_the_rules_end_the_connection_with_a_reason(raw, bad, code):
    (_, above), reader, writer = raw
    writer.write(frame(Opcode.BINARY, b"before") + bad)
    answer = await asyncio.wait_for(reader.read(), 5)
    assert answer[:1] == b"\x88"
    assert int.from_bytes(answer[2:4], "big") == code
    await above.lost.wait()
    assert above.data == b"before"


async def test_pings_without_end_whose_answers_are_not_read_are_cut(raw):
    (_, above), _reader, writer = raw
    writer.transport.pause_reading()
    flood = frame(Opcode.PING, b"x" * 125) * 500
    async with asyncio.timeout(20):
        while not above.lost.is_set():
            writer.write(flood)
            await asyncio.sleep(0)


async def test_frames_are_those_of_an_independent_client(raw, eventually):
    (hub, above), reader, writer = raw
    peer = Protocol(CLIENT, max_size=None)
    peer.send_binary(b"hello")
    writer.write(b"".join(peer.data_to_send()))
    await eventually(lambda: above.data == b"hello")
    hub.write(b"y" * 70_000)
    got = b""
    while len(got) < 70_000:
        peer.receive_data(await reader.read(65536))
        got += b"".join(bytes(event.data) for event in peer.events_received())
    assert got == b"y" * 70_000
