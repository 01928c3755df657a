"""Changes to a message: what a byte-wise mutator would find in hours, because it knows what matters to HTTP parsers."""

from __future__ import annotations

import random

PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\x0b", b"\x0c", b"\x7f", b"\x80", b"\xff", b":", b";", b",", b'"', b"_", b"-", b"+", b"0x", b"chunked", b"%", b"..",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length : 5\r\n", b"content-length:5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\tchunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: upgrade\r\n",
    b"Connection: Impersonate-User\r\n", b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"Host: b\r\n", b"Expect: 100-continue\r\n", b"Impersonate-User: admin\r\n",
    b"X-Remote-User: a\r\n", b"X_Remote_User: a\r\n", b" folded\r\n", b"\r\n\r\n", b"\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"Trailer: x\r\n",
    b"TE: trailers\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff\r\n", b"-1", b"99999999999999999999", b"http://a/", b"*", b"CONNECT ", b"PRI ", b"HEAD ",
]  # fmt: skip


def mutate(data: bytes, source: random.Random, others: list[bytes]) -> bytes:
    """A few changes, mostly small."""
    for _ in range(source.choice((1, 1, 1, 2, 2, 3, 5))):
        data = _CHANGES[source.randrange(len(_CHANGES))](data, source, others)
    return data[:70_000]


def tear(data: bytes, source: random.Random) -> list[bytes]:
    """The same bytes as reads of random sizes."""
    if not data:
        return []
    cuts = sorted({source.randrange(len(data)) for _ in range(source.choice((0, 1, 2, 5, 20)))} - {0})
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _place(data: bytes, source: random.Random) -> int:
    return source.randrange(len(data) + 1)


def _insert(data: bytes, source: random.Random, _others: list[bytes]) -> bytes:
    at = _place(data, source)
    return data[:at] + source.choice(PIECES) + data[at:]


def _insert_line(data: bytes, source: random.Random, _others: list[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(source.randrange(len(lines)), source.choice(PIECES).removesuffix(b"\r\n"))
    return b"\r\n".join(lines)


def _flip(data: bytes, source: random.Random, _others: list[bytes]) -> bytes:
    at = _place(data, source)
    return data[:at] + bytes([source.randrange(256)]) + data[at + 1 :]


def _remove(data: bytes, source: random.Random, _others: list[bytes]) -> bytes:
    at = _place(data, source)
    return data[:at] + data[at + source.choice((1, 1, 2, 8)) :]


def _repeat_line(data: bytes, source: random.Random, _others: list[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    line = source.choice(lines)
    lines.insert(source.randrange(len(lines)), source.choice((line, line.lower(), line.upper(), line.swapcase())))
    return b"\r\n".join(lines)


def _remove_line(data: bytes, source: random.Random, _others: list[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    lines.pop(source.randrange(len(lines)))
    return b"\r\n".join(lines)


def _borrow_line(data: bytes, source: random.Random, others: list[bytes]) -> bytes:
    lines = data.split(b"\r\n")
    lines.insert(source.randrange(len(lines)), source.choice(source.choice(others).split(b"\r\n")))
    return b"\r\n".join(lines)


def _grow(data: bytes, source: random.Random, _others: list[bytes]) -> bytes:
    at = _place(data, source)
    return data[:at] + data[max(0, at - source.choice((1, 4, 40))) : at] * source.choice((2, 10, 400)) + data[at:]


_CHANGES = (
    _insert,
    _insert,
    _insert_line,
    _insert_line,
    _flip,
    _flip,
    _remove,
    _repeat_line,
    _remove_line,
    _borrow_line,
    _borrow_line,
    _grow,
)
