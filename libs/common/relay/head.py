"""Strict parsing of message heads from raw bytes into an ordered list of fields. Pure.

Whatever two parsers could read differently is refused instead of repaired (RFC 9112 2.2, 3, 5, 6.1, 11.2): the bytes of a
head that passes here mean one thing to everybody behind. Two readers must agree on a request, the grammar below and llhttp.
`session` and `exchange` call it; `rebuild` writes heads.

Clients repeat themselves: on a connection that is kept, mostly the first line alone changes. So what the fields of a request
say is a value of its own, a `Block`, and the session offers the last one back: the same bytes are not read twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from functools import lru_cache
from typing import Any

import httptools

from libs.common import errors
from libs.common.relay.names import ORDINARY, RESERVED_PREFIXES, RESPONSE_NOTED

MAX_HEAD = 64 * 1024
MAX_FIELDS = 2048
"""An agent gets one field for each group of the caller; beyond this a head is only work for whoever reads it."""
_FIELD_BYTES = 256
END = b"\r\n\r\n"

Field = tuple[bytes, bytes, bytes]
"""(name in lower case, value without blanks around it, the line: name as it came, colon, blank, value)."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Visible characters, blanks, and bytes from 0x80 (obs-text). No CR, LF, NUL or other control character can match.
_FIELDS = rb"(?:" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n"
_LINE = re.compile(rb"([A-Z]{1,32}) ([\x21-\x7e]++) HTTP/1\.([01])\r\n")
_REQUEST = re.compile(rb"([A-Z]{1,32}) ([\x21-\x7e]++) HTTP/1\.([01])\r\n" + _FIELDS)
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n")
# An answer as nearly all are: nothing in it but ordinary lines. `_special` finds the names that make it another.
_PLAIN_ANSWER = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n" + _FIELDS)
_LENGTH_FIELD = re.compile(rb"\ncontent-length:[\t ]*([0-9]{1,18})[\t ]*\r\n")
_CRLF = b"\r\n"
_DIGITS = re.compile(rb"[0-9]{1,18}")
_UNDERSCORED = frozenset({b"content-length", b"transfer-encoding"}) | {
    b"authorization",
    b"cookie",
    b"host",
    b"connection",
}
_KNOWN_CONNECTION = frozenset({b"keep-alive", b"close", b"upgrade"})
_PARSED = frozenset({b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"host", b"expect"})


class _Reader:
    """Collects what llhttp calls out."""

    __slots__ = ("claims", "fields", "special", "underscored")

    def __init__(self) -> None:
        self.underscored = False
        self.fields: list[Field] = []
        self.special: list[tuple[bytes, bytes]] = []
        self.claims: list[Field] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        value = value.rstrip(b" \t")
        field = (lower, value, name + b": " + value)
        self.fields.append(field)
        if lower in _PARSED:
            self.special.append((lower, value))
        elif lower not in ORDINARY:
            if lower.startswith(RESERVED_PREFIXES):
                self.claims.append(field)
            if b"_" in lower and _looks_like_ours(lower.replace(b"_", b"-")):
                self.underscored = True


class _ResponseReader:
    """Collects of an answer's fields only what the relay must look at."""

    __slots__ = ("noted",)

    def __init__(self) -> None:
        self.noted: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower in RESPONSE_NOTED:
            self.noted.append((lower, value.rstrip(b" \t")))


class Head:
    """What the fields of every message say. `content_length` is None where none was sent."""

    __slots__ = ("chunked", "close", "content_length", "fields", "minor", "upgrade")

    def __init__(self, minor: int) -> None:
        self.minor = minor
        self.fields: list[Field] = []
        self.content_length: int | None = None
        self.chunked = False
        self.close = minor == 0
        """The connection ends after this message."""
        self.upgrade = b""

    def values(self, name: bytes) -> list[bytes]:
        """All values of the fields of that (lower case) name, in order."""
        return [value for lower, value, _ in self.fields if lower == name]

    def value(self, name: bytes) -> bytes:
        """The first value of the name, or b""."""
        return next((value for lower, value, _ in self.fields if lower == name), b"")


class Block(Head):
    """The fields of a request, read: a pure function of `raw`, the bytes after the first line, and of the minor version.

    `claims` are the fields that say who calls (`names.RESERVED_PREFIXES`). Shared between requests: nobody changes one. `memo` is
    for a route: what it found out from these very bytes, and can tell to hold still. `onward` is the block of the head that was last
    made of it, where this process reads that one, too.
    """

    __slots__ = ("_kept", "_kept_for", "claims", "expects_continue", "host", "memo", "onward", "raw", "weight")

    def __init__(self, raw: bytes, minor: int, reader: _Reader) -> None:
        super().__init__(minor)
        self.raw = raw
        self.fields = reader.fields
        self.claims = reader.claims
        self.host = b""
        self.expects_continue = False
        self.memo: Any = None
        self.onward: Block | None = None
        self._kept = b""
        self._kept_for: tuple[Set[bytes], bool] | None = None
        self.weight = len(raw) + _FIELD_BYTES * len(self.fields)
        """About how many bytes of memory it takes: many short fields take far more than they were on the wire."""
        _read_fields(self, reader.special)

    def forget(self) -> None:
        """Let go of what was found out and made of the fields: no request with the same ones will come soon."""
        self.memo = self.onward = None
        self._kept, self._kept_for = b"", None

    def keep(self, allowed: Set[bytes], *, with_host: bool) -> bytes:
        """The lines of the fields that are allowed to go on, then those of the framing and of a switch of protocols, each with its
        CRLF. Host goes on only `with_host`."""
        wanted = (allowed, with_host)
        if self._kept_for != wanted:
            self._kept = _render_kept(self, self.fields, allowed, with_host=with_host)
            self._kept_for = wanted
        return self._kept


class RequestHead(Head):
    """A request's head. `target` is origin-form or `*`, raw; `upgrade` is the protocol asked for in lower case, or b""."""

    __slots__ = ("block", "claims", "expects_continue", "host", "method", "target")

    def __init__(self, method: bytes, target: bytes, block: Block) -> None:
        self.method = method
        self.target = target
        self.block = block
        self.minor = block.minor
        self.fields = block.fields
        self.content_length = block.content_length
        self.chunked = block.chunked
        self.close = block.close
        self.upgrade = block.upgrade
        self.host = block.host
        self.claims = block.claims
        self.expects_continue = block.expects_continue

    @property
    def has_body(self) -> bool:
        return self.chunked or bool(self.content_length)

    def keep(self, allowed: Set[bytes], *, with_host: bool) -> bytes:
        """As `Block.keep`, of the fields that this head has now."""
        if self.fields is self.block.fields:
            return self.block.keep(allowed, with_host=with_host)
        return _render_kept(self, self.fields, allowed, with_host=with_host)


class ResponseHead(Head):
    """A response's head. `raw` is the whole of it as it came; its fields are split only for whoever asks.

    `noted`: lower case name and value of each field of `names.RESPONSE_NOTED`, which the relay must look at or take out.
    """

    __slots__ = ("_fields", "noted", "raw", "status")

    def __init__(self, raw: bytes, status: int, minor: int) -> None:
        self._fields: list[Field] | None = None
        self.minor = minor
        self.content_length: int | None = None
        self.chunked = False
        self.close = minor == 0
        self.upgrade = b""
        self.raw = raw
        self.status = status
        self.noted: Sequence[tuple[bytes, bytes]] = ()

    @classmethod
    def plain(cls, raw: bytes, status: int, length: bytes) -> ResponseHead:
        """Of HTTP/1.1, with nothing to be noted but its length."""
        head = cls(raw, status, 1)
        head.noted = ((b"content-length", length),)
        head.content_length = int(length)
        return head

    @property
    def fields(self) -> list[Field]:
        if self._fields is None:
            self._fields = [_split_line(line) for line in self.raw.split(_CRLF)[1:-2]]
        return self._fields

    @fields.setter
    def fields(self, fields: list[Field]) -> None:
        self._fields = fields

    @property
    def is_untouched(self) -> bool:
        """Nobody asked for the fields, so nobody changed one."""
        return self._fields is None

    @property
    def start_line(self) -> bytes:
        """The status line as it came."""
        return self.raw[: self.raw.index(_CRLF)]


def parse_request(raw: bytes, last: Block | None = None) -> RequestHead:
    """The head in `raw`, which ends with the empty line. Raises BadRequest with the reason; never guesses.

    `last`: the block of an earlier request, which is taken when the bytes are the same.
    """
    match = _LINE.match(raw)
    if match is None:
        raise errors.BadRequest(_explain(raw))
    method, target, digit = match.groups()
    minor = digit == b"1"
    rest = raw[match.end() :]
    if not target.startswith(b"/") and not (target == b"*" and method == b"OPTIONS"):
        raise errors.BadRequest("the request target must be a path: absolute-form and authority-form are not served")
    if method == b"CONNECT":
        raise errors.BadRequest("CONNECT asks for a tunnel to anywhere: that is not served")
    if b"#" in target:
        raise errors.BadRequest("the request target holds a fragment: leave out '#' and what follows")
    if not _is_known_method(method):
        raise errors.BadRequest("the request's method is none that is served")
    if last is not None and last.raw == rest and last.minor == minor:
        return RequestHead(method, target, last)
    if raw.count(b"\n") > MAX_FIELDS:
        raise errors.BadRequest(f"the head holds more than {MAX_FIELDS} fields")
    if _REQUEST.fullmatch(raw) is None:
        raise errors.BadRequest(_explain(raw))
    reader = _Reader()
    parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # it would leave what follows to others, and so do we
    except httptools.HttpParserError as exc:
        raise errors.BadRequest(f"the request head is not accepted: {exc}") from exc
    if reader.underscored:
        raise errors.BadRequest("a header name with '_' looks like one that says who calls: leave it out")
    return RequestHead(method, target, Block(rest, minor, reader))


def _any_of(names: Set[bytes]) -> bytes:
    """An expression for one of these names that looks at each byte once."""
    rests: dict[bytes, set[bytes]] = {}
    for name in names:
        rests.setdefault(name[:1], set()).add(name[1:])
    # Where the shortest ends first, the name itself has to end there too: what follows decides.
    parts = [re.escape(first) + _any_of(rest) for first, rest in sorted(rests.items()) if first]
    if b"" in names:
        parts.append(b"")
    return parts[0] if len(parts) == 1 else b"(?:" + b"|".join(parts) + b")"


_SPECIAL = re.compile(rb"\n" + _any_of(RESPONSE_NOTED - {b"content-length"}) + rb":")


def parse_response(raw: bytes) -> ResponseHead:
    """The head in `raw`. Raises BadRequest: the caller makes it an answer 502."""
    plain = _PLAIN_ANSWER.fullmatch(raw)
    if plain is not None:
        # By the grammar above, which is no wider than llhttp's, and by names that nothing hangs on but one length.
        lower = raw.lower()
        if _SPECIAL.search(lower) is None and lower.count(b"\ncontent-length:") == 1:
            length = _LENGTH_FIELD.search(lower)
            if length is not None:
                return ResponseHead.plain(raw, int(plain[1]), length[1])
    match = _STATUS.match(raw)
    if match is None:
        raise errors.BadRequest("the answer is not HTTP/1.1")
    reader = _ResponseReader()
    try:
        httptools.HttpResponseParser(reader).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # a 101: what follows is no HTTP
    except httptools.HttpParserError as exc:
        raise errors.BadRequest(f"the answer's head is broken: {exc}") from exc
    head = ResponseHead(raw, int(match[2]), match[1] == b"1")
    noted = head.noted = reader.noted
    if len(noted) == 1 and noted[0][0] == b"content-length":
        _read_framing(head, [noted[0][1]], [])
    elif noted:
        _read_fields(head, noted)
    return head


def _split_line(line: bytes) -> Field:
    name, _, value = line.partition(b":")
    return name.lower(), value.strip(b" \t"), line


def _read_fields(head: Head, special: list[tuple[bytes, bytes]]) -> None:
    """Fill in what the fields say about framing and the connection."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    upgrades: list[bytes] = []
    hosts: list[bytes] = []
    expects: list[bytes] = []
    options: set[bytes] = set()
    for lower, value in special:
        if lower == b"content-length":
            lengths.append(value)
        elif lower == b"transfer-encoding":
            codings.append(value.lower())
        elif lower == b"host":
            hosts.append(value)
        elif lower == b"upgrade":
            upgrades.append(value.lower())
        elif lower == b"expect":
            expects.append(value)
        elif lower == b"connection":
            options.update(option.strip(b" \t").lower() for option in value.split(b","))
    if lengths or codings:
        _read_framing(head, lengths, codings)
    if options:
        _read_connection(head, options, upgrades)
    if isinstance(head, Block):
        _read_host(head, hosts, expects)


def _read_host(block: Block, hosts: list[bytes], expects: list[bytes]) -> None:
    if len(hosts) != 1 and (block.minor or hosts):
        raise errors.BadRequest("a request needs exactly one Host header")
    block.host = hosts[0] if hosts else b""
    if expects:
        if len(expects) != 1 or expects[0].lower() != b"100-continue":
            raise errors.BadRequest("the only expectation that is understood is 100-continue")
        block.expects_continue = True


def _read_framing(head: Head, lengths: list[bytes], codings: list[bytes]) -> None:
    if lengths and codings:
        raise errors.BadRequest("Content-Length and Transfer-Encoding together: one message could be read as two")
    if codings:
        if codings != [b"chunked"]:
            raise errors.BadRequest("the only transfer coding that is understood is chunked, once")
        if not head.minor:
            raise errors.BadRequest("Transfer-Encoding does not exist in HTTP/1.0")
        head.chunked = True
        return
    if len(lengths) != 1 or _DIGITS.fullmatch(lengths[0]) is None:
        raise errors.BadRequest("Content-Length must be one decimal number, once")
    head.content_length = int(lengths[0])


def _read_connection(head: Head, options: set[bytes], upgrades: list[bytes]) -> None:
    options.discard(b"")
    # A client that names another header here wants it removed on the way: CVE-2021-31999 took identities off so.
    if isinstance(head, Block) and not options <= _KNOWN_CONNECTION:
        raise errors.BadRequest("Connection may only name keep-alive, close and upgrade")
    if b"close" in options:
        head.close = True
    elif not head.minor and b"keep-alive" in options:
        head.close = False
    if b"upgrade" in options:
        if len(upgrades) != 1 or not upgrades[0]:
            raise errors.BadRequest("Connection: upgrade needs exactly one Upgrade header")
        head.upgrade = upgrades[0]


def _looks_like_ours(dashed: bytes) -> bool:
    """Some servers read `_` in a name as `-`: whether the name would then mean something to us."""
    return dashed in _UNDERSCORED or dashed.startswith(RESERVED_PREFIXES)


@lru_cache(maxsize=64)
def _is_known_method(method: bytes) -> bool:
    """Whether llhttp knows it, as asked with a head that nothing else can be wrong with; CONNECT is for other proxies."""
    try:
        httptools.HttpRequestParser(_Reader()).feed_data(method + b" / HTTP/1.1\r\n\r\n")
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return False
    return True


def _render_kept(head: Head, fields: list[Field], allowed: Set[bytes], *, with_host: bool) -> bytes:
    lines = [line for lower, _, line in fields if lower in allowed and (with_host or lower != b"host")]
    if head.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.content_length is not None:
        lines.append(b"Content-Length: %d" % head.content_length)
    if head.upgrade:
        lines.append(b"Connection: Upgrade")
        lines.append(b"Upgrade: " + next(value for lower, value, _ in fields if lower == b"upgrade"))
    return b"\r\n".join([*lines, b""])


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
