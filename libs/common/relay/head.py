"""Strict parsing of message heads from raw bytes into an ordered list of raw fields. Pure.

Whatever two parsers could read differently is refused instead of repaired (RFC 9112 2.2, 3, 5, 6.1, 11.2): the bytes of a
head that passes here mean one thing to everybody behind. `session` and `upstream` call it; `rebuild` writes heads.
"""

from __future__ import annotations

import re

from libs.common import errors
from libs.common.relay.names import RESERVED_PREFIXES

MAX_HEAD = 64 * 1024
END = b"\r\n\r\n"

Field = tuple[bytes, bytes, bytes]
"""(name in lower case, value without blanks around it, the line as it came)."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Visible characters, blanks, and bytes from 0x80 (obs-text). No CR, LF, NUL or other control character can match.
_FIELDS = rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
_REQUEST = re.compile(rb"([A-Z]{1,32}) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" + _FIELDS)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n" + _FIELDS)
_DIGITS = re.compile(rb"[0-9]{1,18}")
_UNDERSCORED = frozenset({b"content-length", b"transfer-encoding"}) | {
    b"authorization",
    b"cookie",
    b"host",
    b"connection",
}
_KNOWN_CONNECTION = frozenset({b"keep-alive", b"close", b"upgrade"})
_PARSED = frozenset({b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"host", b"expect"})


class Head:
    """What every message has. `content_length` is None where none was sent; `close`: the connection ends after this message."""

    __slots__ = ("chunked", "close", "content_length", "fields", "minor", "upgrade")

    def __init__(self, minor: int) -> None:
        self.minor = minor
        self.fields: list[Field] = []
        self.content_length: int | None = None
        self.chunked = False
        self.close = minor == 0
        self.upgrade = b""

    def values(self, name: bytes) -> list[bytes]:
        """All values of the fields of that (lower case) name, in order."""
        return [value for lower, value, _ in self.fields if lower == name]

    def value(self, name: bytes) -> bytes:
        """The first value of the name, or b""."""
        return next((value for lower, value, _ in self.fields if lower == name), b"")


class RequestHead(Head):
    """A request's head. `target` is origin-form or `*`, raw; `upgrade` is the protocol asked for in lower case, or b""."""

    __slots__ = ("expects_continue", "host", "method", "target")

    def __init__(self, method: bytes, target: bytes, minor: int) -> None:
        super().__init__(minor)
        self.method = method
        self.target = target
        self.host = b""
        self.expects_continue = False

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)


class ResponseHead(Head):
    """A response's head. `start_line` is the status line as it came."""

    __slots__ = ("start_line", "status")

    def __init__(self, status: int, minor: int) -> None:
        super().__init__(minor)
        self.status = status
        self.start_line = b""


def parse_request(raw: bytes) -> RequestHead:
    """The head in `raw`, which ends with the empty line. Raises BadRequest with the reason; never guesses."""
    match = _REQUEST.fullmatch(raw)
    if match is None:
        raise errors.BadRequest(_explain(raw))
    method, target, minor = match.groups()
    if not target.startswith(b"/") and not (target == b"*" and method == b"OPTIONS"):
        raise errors.BadRequest("the request target must be a path: absolute-form and authority-form are not served")
    if b"#" in target:
        raise errors.BadRequest("the request target holds a fragment: leave out '#' and what follows")
    head = RequestHead(method, target, minor == b"1")
    hosts = _read_fields(head, raw)
    if len(hosts) != 1 and (head.minor or hosts):
        raise errors.BadRequest("a request needs exactly one Host header")
    head.host = hosts[0] if hosts else b""
    if head.chunked and not head.minor:
        raise errors.BadRequest("Transfer-Encoding does not exist in HTTP/1.0")
    expects = head.values(b"expect")
    if expects:
        if len(expects) != 1 or expects[0].lower() != b"100-continue":
            raise errors.BadRequest("the only expectation that is understood is 100-continue")
        head.expects_continue = True
    if b"_" in raw:
        _check_underscores(head)
    return head


def parse_response(raw: bytes) -> ResponseHead:
    """The head in `raw`. Raises BadRequest: the caller makes it an answer 502."""
    match = _RESPONSE.fullmatch(raw)
    if match is None:
        raise errors.BadRequest("the answer is not HTTP/1.1")
    minor, status = match.groups()
    head = ResponseHead(int(status), minor == b"1")
    _read_fields(head, raw)
    if head.chunked and not head.minor:
        raise errors.BadRequest("Transfer-Encoding does not exist in HTTP/1.0")
    head.start_line = raw[: raw.index(b"\r\n")]
    return head


def _read_fields(head: Head, raw: bytes) -> list[bytes]:
    """Fill in the fields and what framing and connection they say; returns the values of Host."""
    hosts: list[bytes] = []
    fields = head.fields
    lengths: list[bytes] = []
    codings: list[bytes] = []
    upgrades: list[bytes] = []
    options: set[bytes] = set()
    # The last two items are what follows the final CRLF CRLF.
    for line in raw.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        lower = name.lower()
        value = value.strip(b" \t")
        fields.append((lower, value, line))
        if lower not in _PARSED:
            continue
        if lower == b"content-length":
            lengths.append(value)
        elif lower == b"transfer-encoding":
            codings.append(value.lower())
        elif lower == b"host":
            hosts.append(value)
        elif lower == b"upgrade":
            upgrades.append(value.lower())
        elif lower == b"connection":
            options.update(option.strip(b" \t").lower() for option in value.split(b","))
    if lengths or codings:
        _read_framing(head, lengths, codings)
    if options:
        _read_connection(head, options, upgrades)
    return hosts


def _read_framing(head: Head, lengths: list[bytes], codings: list[bytes]) -> None:
    if lengths and codings:
        raise errors.BadRequest("Content-Length and Transfer-Encoding together: one message could be read as two")
    if codings:
        if codings != [b"chunked"]:
            raise errors.BadRequest("the only transfer coding that is understood is chunked, once")
        head.chunked = True
        return
    if len(lengths) != 1 or _DIGITS.fullmatch(lengths[0]) is None:
        raise errors.BadRequest("Content-Length must be one decimal number, once")
    head.content_length = int(lengths[0])


def _read_connection(head: Head, options: set[bytes], upgrades: list[bytes]) -> None:
    options.discard(b"")
    # A client that names another header here wants it removed on the way: CVE-2021-31999 took identities off so.
    if isinstance(head, RequestHead) and not options <= _KNOWN_CONNECTION:
        raise errors.BadRequest("Connection may only name keep-alive, close and upgrade")
    if b"close" in options:
        head.close = True
    elif not head.minor and b"keep-alive" in options:
        head.close = False
    if b"upgrade" in options:
        if len(upgrades) != 1 or not upgrades[0]:
            raise errors.BadRequest("Connection: upgrade needs exactly one Upgrade header")
        head.upgrade = upgrades[0]


def _check_underscores(head: Head) -> None:
    """Some servers read `_` in a name as `-`: such a name is refused where it would then mean something to us."""
    for lower, _, _ in head.fields:
        if b"_" in lower:
            dashed = lower.replace(b"_", b"-")
            if dashed in _UNDERSCORED or dashed.startswith(RESERVED_PREFIXES):
                raise errors.BadRequest("a header name with '_' looks like one that says who calls: leave it out")


def _explain(raw: bytes) -> str:
    """Why a head is refused, for the person who sent it."""
    if b"\0" in raw:
        return "the request head holds a NUL byte"
    if b"\n" in raw.replace(b"\r\n", b"") or b"\r" in raw.replace(b"\r\n", b""):
        return "the request head holds a bare CR or LF: lines end with CR LF"
    if b"\r\n " in raw or b"\r\n\t" in raw:
        return "the request head holds a folded line, which RFC 9112 5.2 forbids"
    line = raw.partition(b"\r\n")[0]
    if not line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
        return "the first line must be METHOD TARGET HTTP/1.1"
    return "the request head holds a character that is not allowed there, or a line that is no header"
