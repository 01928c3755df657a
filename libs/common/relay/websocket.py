"""The WebSocket carrier of a reverse connection: binary frames below, a transport of plain bytes above.

For balancers that pass no other upgrade. The frames are those of `websockets` (sans-I/O, masking in C); here is what makes them a
transport: what is written becomes frames, what is read becomes bytes, and reading and writing pause as those of the connection
below do, so that memory stays bounded. No extension is ever negotiated.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
from typing import Any, cast

from websockets.frames import Opcode
from websockets.protocol import CLIENT, SERVER, Protocol, State

from libs.common import errors
from libs.common.relay import tunnel
from libs.common.relay.head import RequestHead, ResponseHead

MAX_SENT = 64 * 1024
MAX_RECEIVED = 128 * 1024
"""Payload of one frame. A larger one is refused before it is read."""
_MAX_ANSWERS = 1024 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_NORMAL, _UNSUPPORTED = 1000, 1003


def new_key() -> bytes:
    return base64.b64encode(secrets.token_bytes(16))


def accept_of(key: bytes) -> bytes:
    """RFC 6455 4.2.2."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def request_lines(key: bytes) -> bytes:
    """The header lines by which the agent asks for the carrier."""
    return (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n"
        b"Sec-WebSocket-Protocol: %s\r\n" % (key, tunnel.SUBPROTOCOL.encode())
    )


def accept_request(head: RequestHead) -> bytes:
    """The 101 for an agent's request. Raises BadRequest."""
    keys = head.values(b"sec-websocket-key")
    try:
        good = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except (binascii.Error, ValueError):
        good = False
    if not good or head.values(b"sec-websocket-version") != [b"13"]:
        raise errors.BadRequest("this is no WebSocket handshake of version 13")
    offered = [p.strip() for value in head.values(b"sec-websocket-protocol") for p in value.split(b",")]
    if tunnel.SUBPROTOCOL.encode() not in offered:
        raise errors.BadRequest(f"the only WebSocket subprotocol here is {tunnel.SUBPROTOCOL}")
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n"
        b"Sec-WebSocket-Protocol: %s\r\n\r\n" % (accept_of(keys[0]), tunnel.SUBPROTOCOL.encode())
    )


def is_accepted(head: ResponseHead, key: bytes) -> bool:
    """Whether the answer is the 101 to our own request, with nothing in it that we did not ask for."""
    return (
        head.status == 101
        and head.upgrade == b"websocket"
        and head.value(b"sec-websocket-accept") == accept_of(key)
        and head.value(b"sec-websocket-protocol") == tunnel.SUBPROTOCOL.encode()
        and not head.values(b"sec-websocket-extensions")
    )


class WebSocketTransport(asyncio.Transport, asyncio.Protocol):
    """A transport to whoever is above (`set_protocol`), a protocol to the transport below.

    Invariant: nothing is buffered here but an incomplete frame; bytes wait in the buffers of the connection below, whose limits are ours.
    A connection that ends without a close frame ended by accident, and `connection_lost` says so.
    """

    def __init__(self, below: asyncio.Transport, *, client: bool) -> None:
        super().__init__()
        self._below = below
        self._frames = Protocol(CLIENT if client else SERVER, max_size=(None, MAX_RECEIVED))
        self._above: asyncio.Protocol = asyncio.Protocol()
        self._lost = False
        below.set_protocol(self)

    # the transport, for whoever is above

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._above = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._below.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._frames.state is not State.OPEN or self._below.is_closing():
            return
        if len(data) <= MAX_SENT:
            self._frames.send_binary(data)
        else:
            view = memoryview(data)
            for start in range(0, len(view), MAX_SENT):
                self._frames.send_binary(view[start : start + MAX_SENT])
        self._send()

    def pause_reading(self) -> None:
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._below.resume_reading()

    def is_reading(self) -> bool:
        return self._below.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high=high, low=low)

    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """TLS below has such limits, plain TCP has none; `sockets.tune` says why they matter."""
        if (limit := getattr(self._below, "set_read_buffer_limits", None)) is not None:
            limit(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.get_write_buffer_limits()

    def can_write_eof(self) -> bool:
        """A close frame ends both directions."""
        return False

    def is_closing(self) -> bool:
        return self._lost or self._frames.state is not State.OPEN or self._below.is_closing()

    def close(self) -> None:
        if self._frames.state is State.OPEN and not self._below.is_closing():
            self._frames.send_close(_NORMAL)
            self._send()
        self._below.close()

    def abort(self) -> None:
        self._below.abort()

    # the protocol, for the connection below

    def data_received(self, data: bytes) -> None:
        self._frames.receive_data(data)
        payload: list[bytes | bytearray | memoryview] = []
        ended = False
        for frame in self._frames.events_received():
            opcode = frame.opcode  # type: ignore[union-attr] # after the handshake all events are frames
            if opcode is Opcode.BINARY or opcode is Opcode.CONT:
                payload.append(frame.data)  # type: ignore[union-attr]
            elif opcode is Opcode.TEXT:
                self._frames.fail(_UNSUPPORTED, "binary frames only")
            elif opcode is Opcode.CLOSE:
                ended = True
        failed = self._frames.parser_exc is not None or (self._frames.state is not State.OPEN and not ended)
        if payload:
            self._above.data_received(bytes(payload[0]) if len(payload) == 1 else b"".join(payload))
        self._send()
        if self._below.get_write_buffer_size() > _MAX_ANSWERS:
            # Whoever is above stops when it is told to: only pings without end, whose answers nobody reads, come so far.
            self._below.abort()
        elif ended or failed:
            self._end(gently=not failed)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._lost:
            return
        self._lost = True
        if self._frames.close_rcvd is not None:
            exc = None  # that our answer to the close frame found nobody any more is no accident
        elif exc is None and self._frames.close_sent is None:
            exc = ConnectionResetError("the connection ended without a close frame")
        self._above.connection_lost(exc if isinstance(exc, Exception) else None)

    def _send(self) -> None:
        for piece in self._frames.data_to_send():
            if piece and not self._below.is_closing():
                self._below.write(piece)

    def _end(self, *, gently: bool) -> None:
        """The peer closed, or broke the rules: the close frame that answers it is written already."""
        if gently:
            self._above.eof_received()
        self._below.close()
