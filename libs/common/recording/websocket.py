"""Kubernetes' channel protocols v4 and v5 over WebSocket, both directions read beside the relay. Pure.

A message's first byte is its channel. `wsproto` reads the frames (RFC 6455), whole or in parts, so memory stays bounded whatever
a frame's header promises; extensions are refused at the handshake (`decoder`), so no reserved bit may be set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from wsproto.frame_protocol import CloseReason, FrameDecoder, Opcode, ParseFailed

from libs.common.recording.channels import Resizes
from libs.common.recording.events import ERROR, OUTPUTS, RESIZE, STDIN, Piece, Undecodable

PROTOCOLS = ("v4.channel.k8s.io", "v5.channel.k8s.io")
CLOSE_CHANNEL = 255
_MESSAGE = (Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION)
_FROM_SERVER = (*OUTPUTS, ERROR)


class WebSocketDecoder:
    """Implements `decoder.Decoder`."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self._client = _Messages(masked=True)
        self._server = _Messages(masked=False)
        self._resizes = Resizes()
        self._closes = protocol.startswith("v5.")

    def from_client(self, data: bytes) -> list[Piece]:
        pieces: list[Piece] = []
        for channel, part in self._client.feed(data):
            if channel == STDIN:
                pieces.append(Piece(STDIN, part))
            elif channel == RESIZE:
                pieces += [Piece(RESIZE, size) for size in self._resizes.feed(part)]
            elif part and not (channel == CLOSE_CHANNEL and self._closes):
                raise Undecodable(f"the client sent something on channel {channel}, where it has nothing to say")
        return pieces

    def from_server(self, data: bytes) -> list[Piece]:
        pieces: list[Piece] = []
        for channel, part in self._server.feed(data):
            # Empty messages open a session, one for each channel.
            if not part:
                continue
            if channel not in _FROM_SERVER:
                raise Undecodable(f"the cluster sent something on channel {channel}, where it has nothing to say")
            pieces.append(Piece(channel, part))
        return pieces

    def last_words(self, message: str) -> bytes:
        """What ends the session for the client with a reason, or nothing where a message is only half through."""
        if not self._server.between:
            return b""
        status = {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}
        # After any other code kubectl reports the code instead of the status.
        words = bytes([ERROR]) + json.dumps(status).encode()
        return _frame(Opcode.BINARY, words) + _frame(Opcode.CLOSE, CloseReason.NORMAL_CLOSURE.to_bytes(2, "big"))


class _Messages:
    """One direction's frames → (channel, bytes), in as many parts as they come in."""

    def __init__(self, *, masked: bool) -> None:
        self._frames = FrameDecoder(client=not masked)
        self._in_message = False
        self._channel: int | None = None

    @property
    def between(self) -> bool:
        """No message and no frame is under way."""
        return not self._in_message and self._frames.header is None and not len(self._frames.buffer)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        if data:
            self._frames.receive_bytes(data)
        while True:
            try:
                frame = self._frames.process_buffer()
            except ParseFailed as exc:
                raise Undecodable(f"the session's WebSocket frames can't be read: {exc}") from exc
            if frame is None:
                return
            if frame.opcode not in _MESSAGE:
                continue
            if (frame.opcode is Opcode.CONTINUATION) is not self._in_message:
                raise Undecodable("the session's WebSocket messages are cut in a way that has no meaning")
            payload = frame.payload
            assert isinstance(payload, bytes)
            self._in_message = not (frame.frame_finished and frame.message_finished)
            if self._channel is None and payload:
                self._channel, payload = payload[0], payload[1:]
            if self._channel is not None:
                yield self._channel, payload
            if not self._in_message:
                self._channel = None


def _frame(opcode: Opcode, payload: bytes) -> bytes:
    """One frame as a server sends it; `payload` is short."""
    size = len(payload)
    length = bytes([size]) if size < 126 else bytes([126]) + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + payload
