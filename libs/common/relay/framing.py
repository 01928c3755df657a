"""Where a message's body ends, found without keeping or changing a byte of it. Pure.

`exchange` feeds every read to `scan` and passes the same bytes on. Own code instead of a parser's, because the relay needs the
exact position of the end inside a read (what follows belongs to the next message, or to nobody), and because the chunk rules
must be at least as strict as those of whoever reads the bytes after us (RFC 9112 7.1).
"""

from __future__ import annotations

import re
from typing import Protocol

from libs.common import errors
from libs.common.relay.head import RequestHead, ResponseHead
from libs.common.relay.names import FORBIDDEN_TRAILERS

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t\x20-\x7e\x80-\xff]*")
_MAX_LINE = 4096
_MAX_TRAILERS = 16 * 1024


class Framing(Protocol):
    """Follows one body. `done` once its last byte was scanned; a body that ends with its connection is never done."""

    done: bool

    def scan(self, data: bytes, start: int = 0) -> int:
        """The index in `data` after the last byte that belongs to the body. Raises BadRequest on broken framing."""
        ...


class Length:
    """Content-Length, 0 for a message without body."""

    __slots__ = ("_left", "done")

    def __init__(self, size: int) -> None:
        self._left = size
        self.done = size == 0

    def scan(self, data: bytes, start: int = 0) -> int:
        take = min(self._left, len(data) - start)
        self._left -= take
        self.done = self._left == 0
        return start + take


class UntilClose:
    """A response without length: the end of the connection is the end of the body."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def scan(self, data: bytes, start: int = 0) -> int:
        return len(data)


class Chunked:
    """Chunked coding. Lines may be torn anywhere between reads; sizes are hexadecimal only, lines end with CR LF only."""

    __slots__ = ("_left", "_line", "_state", "_trailer_bytes", "done")

    _SIZE_LINE, _DATA, _DATA_END, _TRAILERS = range(4)

    def __init__(self) -> None:
        self.done = False
        self._state = self._SIZE_LINE
        self._left = 0
        self._line = b""
        self._trailer_bytes = 0

    @property
    def between_chunks(self) -> bool:
        """Whether a last chunk could follow the bytes that were scanned."""
        return self._state == self._SIZE_LINE and not self._line and not self.done

    def scan(self, data: bytes, start: int = 0) -> int:
        position, end = start, len(data)
        while position < end and not self.done:
            if self._state == self._DATA:
                take = min(self._left, end - position)
                position += take
                self._left -= take
                if self._left == 0:
                    self._state = self._DATA_END
                continue
            stop = data.find(b"\n", position)
            piece = data[position:] if stop < 0 else data[position : stop + 1]
            if len(self._line) + len(piece) > _MAX_LINE:
                raise errors.BadRequest("a line of the chunked body is too long")
            self._line += piece
            position += len(piece)
            if stop >= 0:
                line, self._line = self._line, b""
                self._on_line(line)
        return position

    def _on_line(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise errors.BadRequest("a line of the chunked body ends without CR")
        line = line[:-2]
        if self._state == self._SIZE_LINE:
            match = _SIZE.fullmatch(line)
            if match is None:
                raise errors.BadRequest("a chunk size is not a hexadecimal number")
            self._left = int(match.group(1), 16)
            self._state = self._DATA if self._left else self._TRAILERS
        elif self._state == self._DATA_END:
            if line:
                raise errors.BadRequest("a chunk is longer than its size says")
            self._state = self._SIZE_LINE
        elif not line:
            self.done = True
        else:
            self._trailer_bytes += len(line)
            match = _TRAILER.fullmatch(line)
            if match is None or self._trailer_bytes > _MAX_TRAILERS:
                raise errors.BadRequest("the trailer section of the chunked body is malformed or too long")
            if match.group(1).lower().replace(b"_", b"-").startswith(FORBIDDEN_TRAILERS):
                raise errors.BadRequest("a trailer may not hold a header that decides about the request")


_NOTHING = Length(0)
"""Shared: to scan it changes nothing."""


def of_request(head: RequestHead) -> Framing:
    """RFC 9112 6.3: a request without length has no body."""
    if head.chunked:
        return Chunked()
    return Length(head.content_length) if head.content_length else _NOTHING


def of_response(method: bytes, head: ResponseHead) -> Framing:
    """RFC 9112 6.3, for a final response (not 1xx)."""
    if method == b"HEAD" or head.status in (204, 304):
        return Length(0)
    if head.chunked:
        return Chunked()
    if head.content_length is not None:
        return Length(head.content_length)
    return UntilClose()
