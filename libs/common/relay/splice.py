"""Two connections after a switch of protocols: raw bytes both ways, nothing looked at.

Only `exchange` makes one, after a parsed 101. An end of stream is passed on where the carrier can say it (plain TCP), else the
other connection closes after what is queued went out; the pair is over when both directions are.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from libs.common.relay.sockets import close_gently

if TYPE_CHECKING:
    from libs.common.relay.exchange import Exchange
    from libs.common.relay.session import Session
    from libs.common.relay.upstream import Upstream


class Splice:
    """Owner of both transports from the 101 on."""

    __slots__ = ("_client", "_ended", "_ending", "_exchange", "_server", "held")

    def __init__(self, exchange: Exchange, session: Session, upstream: Upstream, *, to_client: bytes) -> None:
        self._exchange = exchange
        self._ended = False
        self._ending = False
        self.held = False
        client_transport, early = session.give_away()
        server_transport = upstream.leave()
        self._client = _Half(self, client_transport, session.write_paused)
        self._server = _Half(self, server_transport, upstream.write_paused)
        self._client.other, self._server.other = self._server, self._client
        client_transport.set_protocol(self._client)
        server_transport.set_protocol(self._server)
        if to_client:
            self._server.data_received(to_client)
        if early:
            self._client.data_received(early)

    @property
    def write_paused(self) -> bool:
        return self._server.write_paused

    def write(self, data: bytes) -> None:
        self._server.transport.write(data)

    def close(self) -> None:
        """Cut both at once: revocation and shutdown."""
        for half in (self._client, self._server):
            half.transport.abort()

    def hold(self) -> None:
        """Read no more from either side until `release`: whoever taps the exchange can't keep up."""
        self.held = True
        for half in (self._client, self._server):
            if not half.lost:
                half.transport.pause_reading()

    def release(self) -> None:
        self.held = False
        for half in (self._client, self._server):
            if not half.lost and not half.other.write_paused:
                half.transport.resume_reading()

    def end_with(self, words: bytes) -> None:
        """Cut the server, and give the client these bytes as the last before its connection closes. For who taps the exchange."""
        self._ending = True
        if not self._client.lost:
            self._client.transport.write(words)
            # A TLS connection ends only when the other side's goodbye is read.
            self._client.transport.resume_reading()
        self._server.transport.abort()

    def passing(self, half: _Half, data: bytes) -> bool:
        """Count what this half read, and show it to the tap. False: it may not go on, both connections are cut."""
        tap = self._exchange.relay.tap
        if half is self._client:
            self._exchange.bytes_in += len(data)
            return tap is None or (not self._ending and self._exchange.tapped(tap.request_bytes, data))
        self._exchange.bytes_out += len(data)
        return tap is None or (not self._ending and self._exchange.tapped(tap.response_bytes, data))

    def half_lost(self, half: _Half, error: BaseException | None) -> None:
        if error is not None:
            half.other.transport.abort()
        elif not half.other.lost:
            close_gently(half.other.transport)
        if half.other.lost and not self._ended:
            self._ended = True
            self._exchange.splice_ended("" if error is None else "the connection broke")


class _Half(asyncio.Protocol):
    """One of the two connections: what it reads, the other writes."""

    __slots__ = ("_at_eof", "_splice", "lost", "other", "transport", "write_paused")
    other: _Half

    def __init__(self, splice: Splice, transport: asyncio.Transport, write_paused: bool) -> None:
        self._splice = splice
        self._at_eof = False
        self.write_paused = write_paused
        self.transport = transport
        self.lost = False

    def data_received(self, data: bytes) -> None:
        if not self._splice.passing(self, data):
            return
        other = self.other
        other.transport.write(data)
        if other.write_paused:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """True keeps this side open for writing."""
        self._at_eof = True
        target = self.other.transport
        if not target.can_write_eof() or not self.transport.can_write_eof() or self.other.lost:
            return False
        target.write_eof()
        return not self.other._at_eof

    def pause_writing(self) -> None:
        self.write_paused = True
        if not self.other.lost:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        if not self.other.lost and not self._splice.held:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        self._splice.half_lost(self, exc)
