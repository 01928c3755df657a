"""The head that goes on: a new list of lines from an allow-list, never a copy with things taken out. Pure.

Routes call `request_head` with the identity of the caller, which is appended after everything else and checked to be there;
`exchange` calls `response_head`. Repeated fields stay repeated and in order; bytes of a line stay as they came.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from libs.common import errors
from libs.common.relay.head import Block, RequestHead, ResponseHead
from libs.common.relay.names import HOP_BY_HOP

_CRLF = b"\r\n"
_CLOSE = b"Connection: close\r\n"
_PASSING = frozenset({b"content-length", b"transfer-encoding"})
_IMPERSONATE = b"\r\nimpersonate-"


def request_head(
    head: RequestHead,
    target: bytes,
    *,
    allowed: Set[bytes],
    host: bytes = b"",
    identity: bytes = b"",
    own: Sequence[bytes] = (),
) -> bytes:
    """The request's head for the next hop: method and target, and the `request_tail`."""
    return b"%b %b%b" % (
        head.method, target, request_tail(head, allowed=allowed, host=host, identity=identity, own=own)
    )  # fmt: skip


def request_tail(
    fields: RequestHead | Block,
    *,
    allowed: Set[bytes],
    host: bytes = b"",
    identity: bytes = b"",
    own: Sequence[bytes] = (),
) -> bytes:
    """What follows the target, from the blank on. It is the same for every request with the same fields, so that who sees them again may keep it.

    `allowed`: names that pass. `host`: the Host to say; empty = what the client said, if that passes. `own`: lines of ours. `identity`:
    ready lines that each end with CRLF; they come last, so that nothing after them could take them off again.
    """
    return b"".join(
        (
            b" HTTP/1.1\r\n", b"Host: " + host + _CRLF if host else b"",
            fields.keep(allowed, with_host=not host), *(line + _CRLF for line in own), identity, _CRLF,
        )
    )  # fmt: skip


def check_identity(built: bytes, identity: bytes) -> None:
    """The assertion before the write: `built`, a head or its tail, ends with exactly this identity. Raises Internal, so that nothing leaves.

    A first line holds no line break, so what is said of a tail is true of every head that ends with it.
    """
    if not identity.startswith(b"Impersonate-User: ") or not built.endswith(_CRLF + identity + _CRLF):
        raise errors.Internal("a request without the caller's identity was about to leave: it was stopped")
    if built.lower().find(_IMPERSONATE) != len(built) - len(identity) - 2 * len(_CRLF):
        raise errors.Internal("a request with a second identity was about to leave: it was stopped")


def response_head(
    head: ResponseHead, *, dropped: Set[bytes] = frozenset(), close: bool = False, own: bytes = b""
) -> bytes:
    """The response's head for the client. `dropped`: names of `names.RESPONSE_NOTED` that may not pass. `own`: ready lines of ours, each
    ending with CRLF."""
    if head.is_untouched and head.minor and head.status != 101 and all(name in _PASSING for name, _ in head.noted):
        # Nothing in it is to be taken out: the bytes as they came, without the empty line.
        return b"".join((head.raw[:-2], _CLOSE if close else b"", own, _CRLF))
    lines = [head.start_line if head.minor else b"HTTP/1.1" + head.start_line[8:]]
    lines += [line for lower, _, line in head.fields if lower not in HOP_BY_HOP and lower not in dropped]
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    if head.status == 101:
        lines.append(b"Connection: Upgrade")
        lines.append(b"Upgrade: " + head.value(b"upgrade"))
    elif close:
        lines.append(b"Connection: close")
    return _CRLF.join(lines) + _CRLF + own + _CRLF
