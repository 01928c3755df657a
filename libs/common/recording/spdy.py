"""Sessions over SPDY/3.1, both directions read beside the relay (draft-mbelshe-httpbis-spdy-00, 2.2; 3.1 differs in flow control only).

The client opens one stream for each channel and says which with the header `streamtype`; data goes both ways on it. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from libs.common.recording.channels import Resizes
from libs.common.recording.events import ERROR, NAMES, OUTPUTS, RESIZE, STDIN, Piece, Undecodable
from libs.common.recording.spdy_headers import MAX_BLOCK, HeaderBlocks

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_KNOWN = frozenset({SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE})
_BEFORE_BLOCK = {SYN_STREAM: 10, SYN_REPLY: 4, HEADERS: 4}
"""Bytes between a frame's own header and its name/value block."""
_VERSION = 3
_FIN = 1
MAX_STREAMS = 64
_STREAM_ID = 0x7FFF_FFFF


class SpdyDecoder:
    """Implements `decoder.Decoder`. Every byte that the cluster sends on any stream comes out, or the session is undecodable."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self._client = _Frames()
        self._server = _Frames()
        self._streams: dict[int, int] = {}
        self._resizes = Resizes()

    def from_client(self, data: bytes) -> list[Piece]:
        pieces: list[Piece] = []
        for item in self._client.feed(data):
            if isinstance(item, _Control):
                if item.kind == SYN_STREAM:
                    self._open(item)
            elif item.data:
                channel = self._channel(item)
                if channel == RESIZE:
                    pieces += [Piece(RESIZE, size) for size in self._resizes.feed(item.data)]
                elif channel == STDIN:
                    pieces.append(Piece(STDIN, item.data))
                else:
                    raise Undecodable("the client sent something on a stream where it has nothing to say")
        return pieces

    def from_server(self, data: bytes) -> list[Piece]:
        pieces: list[Piece] = []
        for item in self._server.feed(data):
            if isinstance(item, _Control):
                if item.kind == SYN_STREAM:
                    raise Undecodable("the cluster opened a stream of its own")
            elif item.data:
                channel = self._channel(item)
                if channel not in (*OUTPUTS, ERROR):
                    raise Undecodable("the cluster sent something on a stream where it has nothing to say")
                pieces.append(Piece(channel, item.data))
        return pieces

    def last_words(self, message: str) -> bytes:
        """What ends the session for the client with a reason, or nothing where a frame is only half through."""
        stream = next((id_ for id_, channel in self._streams.items() if channel == ERROR), None)
        if stream is None or not self._server.between:
            return b""
        status = {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}
        words = json.dumps(status).encode()
        return stream.to_bytes(4, "big") + bytes([_FIN]) + len(words).to_bytes(3, "big") + words

    def _open(self, frame: _Control) -> None:
        name = frame.headers.get(b"streamtype", b"").decode("latin-1")
        if name not in NAMES:
            raise Undecodable("the client opened a stream that is none of a session's")
        if frame.stream in self._streams or len(self._streams) >= MAX_STREAMS:
            raise Undecodable("the client opened more streams than a session has")
        self._streams[frame.stream] = NAMES[name]

    def _channel(self, part: _Data) -> int:
        channel = self._streams.get(part.stream)
        if channel is None:
            raise Undecodable("the session has data on a stream that nobody opened")
        return channel


@dataclass(frozen=True, slots=True)
class _Control:
    """`headers` is empty for frames that have none."""

    kind: int
    stream: int
    headers: dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Data:
    stream: int
    data: bytes


class _Frames:
    """One direction's frames. Data comes out in the parts in which it came in; of a control frame at most 64 KiB wait."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0
        self._stream = 0
        self._blocks = HeaderBlocks()

    @property
    def between(self) -> bool:
        """No frame is under way."""
        return not self._rest and not self._left

    def feed(self, data: bytes) -> list[_Control | _Data]:
        if self._rest:
            data, self._rest = self._rest + data, b""
        found: list[_Control | _Data] = []
        at, size = 0, len(data)
        while True:
            if self._left:
                part = data[at : at + self._left]
                self._left -= len(part)
                at += len(part)
                if part:
                    found.append(_Data(self._stream, part))
            if size - at < 8:
                break
            first, length = int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 5 : at + 8], "big")
            if not first >> 31:
                self._stream, self._left = first, length
                at += 8
                continue
            version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
            if version != _VERSION or kind not in _KNOWN or length > MAX_BLOCK:
                raise Undecodable("the session's SPDY frames can't be read")
            if size - at < 8 + length:
                break
            found.append(self._control(kind, data[at + 8 : at + 8 + length]))
            at += 8 + length
        self._rest = data[at:]
        return found

    def _control(self, kind: int, content: bytes) -> _Control:
        start = _BEFORE_BLOCK.get(kind)
        if start is None:
            return _Control(kind, 0, {})
        if len(content) < start:
            raise Undecodable("the session's SPDY frames end too early")
        stream = int.from_bytes(content[:4], "big") & _STREAM_ID
        return _Control(kind, stream, self._blocks.read(content[start:]))
