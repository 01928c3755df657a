"""Whole connections: a stream of requests through a real `Session` and `Exchange`, and an answer back, in memory and torn anywhere.

h11 reads the same bytes on its own. What the far side gets must be the requests that h11 saw, in order, none more and none
otherwise; what the client gets must be the answer that h11 saw, or an error, or a torn connection, but never a whole other answer.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import h11

from libs.common.relay import rebuild
from libs.common.relay.decision import Decision, Relay
from libs.common.relay.exchange import Exchange
from libs.common.relay.head import RequestHead
from libs.common.relay.names import KUBERNETES_REQUEST
from libs.common.relay.server import Engine
from libs.common.relay.session import Session
from libs.common.relay.upstream import Upstream
from tests.relay.fuzz.mutate import mutate, tear

_HUGE = 1 << 20


@dataclass(frozen=True)
class Message:
    """One message as somebody read it; `body` is without chunk framing."""

    start: tuple[bytes, ...]
    body: bytes


class Wire(asyncio.Transport):
    """A transport that keeps what is written. It imitates neither buffers nor time."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False
        self.aborted = False

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Nothing is sent unless the test does it."""

    def resume_reading(self) -> None:
        """As above."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """No buffer."""

    def get_write_buffer_size(self) -> int:
        return 0


class Far:
    """The far side as a source of connections: a new one for each that was closed."""

    def __init__(self) -> None:
        self.wires: list[Wire] = []
        self.current: Upstream | None = None

    def acquire(self) -> Upstream | None:
        if self.current is None or self.current.closed:
            self.current = Upstream(self)
            wire = Wire()
            self.wires.append(wire)
            self.current.connection_made(wire)
        return self.current

    async def open(self) -> Upstream:
        upstream = self.acquire()
        assert upstream is not None
        return upstream

    def put_back(self, upstream: Upstream) -> None:
        """It stays `current`."""

    def lost(self, upstream: Upstream) -> None:
        """It is replaced when the next one is asked for."""


@dataclass
class Rig:
    far: Far = field(default_factory=Far)
    exchanges: list[Exchange] = field(default_factory=list)

    def route(self, head: RequestHead, _session: Session) -> Decision:
        built = rebuild.request_head(head, head.target, allowed=KUBERNETES_REQUEST, host=b"up")
        return Relay(
            self.far,
            built,
            lambda answer, close: rebuild.response_head(answer, close=close),
            upgrade=head.upgrade,
            watcher=self,
        )

    def began(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def ended(self, exchange: Exchange) -> None:
        """They are only counted."""


def open_session(rig: Rig) -> tuple[Session, Wire, Engine]:
    engine = Engine(rig.route)
    session = Session(engine)
    wire = Wire()
    session.connection_made(wire)
    return session, wire, engine


def read_requests(data: bytes) -> tuple[list[Message], bool]:
    """The whole requests in a stream as h11 reads them, and whether it met something that is none."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HUGE)
    connection.receive_data(data)
    found: list[Message] = []
    head: h11.Request | None = None
    body = b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return found, True
        if isinstance(event, h11.Request):
            head, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            found.append(Message((bytes(head.method), bytes(head.target)), body))
            if head.method == b"CONNECT":
                return found[:-1], True
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return found, False
            connection.start_next_cycle()
        else:
            return found, False


def make_stream(source: random.Random, heads: list[bytes], bodies: list[bytes]) -> bytes:
    """A few requests after one another; now and then something is changed."""
    stream = b""
    for _ in range(source.choice((1, 2, 3, 6))):
        kind = source.randrange(6)
        lines = [
            b"%s /%d HTTP/1.1" % (source.choice((b"GET", b"POST", b"PUT", b"HEAD", b"DELETE")), source.randrange(100)),
            b"Host: h",
        ]
        body = b""
        if kind == 0:
            body = source.choice(bodies)
            lines.append(b"Transfer-Encoding: chunked")
        elif kind == 1:
            body = source.choice((b"", b"hello", source.choice(heads), b"\r\n\r\n", b"0\r\n\r\n"))
            lines.append(b"Content-Length: %d" % len(body))
        elif kind == 2:
            lines.append(source.choice((b"Connection: close", b"Connection: keep-alive", b"Expect: 100-continue")))
        elif kind == 3:
            stream += source.choice(heads)
            continue
        stream += b"\r\n".join(lines) + b"\r\n\r\n" + body
    return mutate(stream, source, heads) if source.random() < 0.6 else stream


async def check_requests(stream: bytes, source: random.Random) -> int:
    """Feed the stream in pieces; returns how many requests arrived whole. AssertionError is a finding."""
    rig = Rig()
    session, wire, engine = open_session(rig)
    try:
        for piece in tear(stream, source):
            if wire.closed:
                break
            session.data_received(piece)
            await _answer_all(rig, wire)
        await _answer_all(rig, wire)
        expected, _ = read_requests(stream)
        got: list[Message] = []
        for far in rig.far.wires:
            read, broken = read_requests(bytes(far.written))
            assert far.aborted or not broken, f"what reached the far side is no HTTP: {bytes(far.written)!r}"
            got += read
        assert got == expected[: len(got)], f"the far side got {got}, h11 reads {expected}"
        return len(got)
    finally:
        session.abort()
        engine.sweeper.close()


async def _answer_all(rig: Rig, wire: Wire) -> None:
    """Answer what is whole, until nothing moves any more."""
    while True:
        await asyncio.sleep(0)
        current = rig.exchanges[-1] if rig.exchanges else None
        if current is None or current.finished or not current.request_done or wire.closed:
            await asyncio.sleep(0)
            if rig.exchanges and rig.exchanges[-1] is not current:
                continue
            return
        upstream = rig.far.current
        assert upstream is not None
        upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def read_answer(data: bytes, method: bytes, *, ended: bool) -> tuple[Message | None, bytes]:
    """The final answer as a client reads it, None when it is not whole; and the bytes behind it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HUGE)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if ended:
        connection.receive_data(b"")
    start, body = (b"",), b""
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None, b""
        if isinstance(event, h11.Response):
            start = (b"%d" % event.status_code,)
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Message(start, body), connection.trailing_data[0]
        elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
            return None, b""


async def check_answer(answer: bytes, method: bytes, source: random.Random, *, lost: bool) -> bool:
    """Answer one request with these bytes, torn anywhere; `lost`: the connection breaks at their end instead of ending."""
    rig = Rig()
    session, wire, engine = open_session(rig)
    try:
        session.data_received(method + b" / HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.sleep(0)
        upstream = rig.far.current
        assert upstream is not None
        exchange = rig.exchanges[-1]
        for piece in tear(answer, source):
            if exchange.finished:
                break
            upstream.data_received(piece)
        if not exchange.finished and not upstream.closed:
            upstream.connection_lost(ConnectionResetError() if lost else None)
        await asyncio.sleep(0)
        meant, _ = read_answer(answer, method, ended=not lost)
        got, behind = read_answer(bytes(wire.written), method, ended=wire.closed and not wire.aborted)
        assert not behind, f"bytes behind the answer: {behind!r}"
        ours = got is not None and got.start in ((b"502",), (b"504",)) and b'"kind": "Status"' in bytes(wire.written)
        if not (ours or (method == b"HEAD" and b"Cache-Control: no-store" in wire.written)):
            assert got is None or got == meant, f"the client read {got}, the server meant {meant}"
        return got is not None and not ours
    finally:
        session.abort()
        engine.sweeper.close()
