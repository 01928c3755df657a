"""The bytes inside a chunked body, taken out as they pass. Pure; `framing` has found the same bytes to be well formed before."""

from __future__ import annotations


class Payload:
    """Feed it a chunked body in pieces torn anywhere; it keeps no more than a line of the framing."""

    __slots__ = ("_left", "_line", "_skip")

    def __init__(self) -> None:
        self._left = 0
        self._skip = 0
        """Bytes of the line end behind a chunk's data that are still to come."""
        self._line = b""

    def feed(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        position = 0
        while position < len(data):
            if self._left:
                piece = data[position : position + self._left]
                parts.append(piece)
                self._left -= len(piece)
                position += len(piece)
                self._skip = 0 if self._left else 2
            elif self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
            else:
                stop = data.find(b"\n", position)
                if stop < 0:
                    self._line += data[position:]
                    break
                line, self._line = self._line + data[position:stop], b""
                position = stop + 1
                size = line.partition(b";")[0].strip()
                # The trailer section, of which nothing is payload, has lines that are no numbers.
                self._left = int(size, 16) if _is_hex(size) else 0
        return b"".join(parts)


def _is_hex(text: bytes) -> bool:
    return bool(text) and not text.strip(b"0123456789abcdefABCDEF")
