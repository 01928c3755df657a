"""SPDY/3's name/value blocks (draft-mbelshe-httpbis-spdy-00, 2.6.10): zlib with a fixed dictionary, one context for each direction. Pure."""

from __future__ import annotations

import zlib

from libs.common.recording.events import Undecodable

MAX_BLOCK = 64 * 1024
DICTIONARY_ID = 0xE3C6A7C2
"""Adler-32 of the dictionary: stands in each stream's zlib header, so another one can't be mistaken for it."""

_WORDS = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
]
_MORE_WORDS = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_CODES = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found"
    "500 Internal Server Error501 Not Implemented503 Service Unavailable"
)
_VALUES = (
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,"
    "image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8"
    "charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(len(word).to_bytes(4, "big") + word.encode() for word in (*_WORDS, *_MORE_WORDS))
    + (_CODES + _VALUES).encode()
)


class HeaderBlocks:
    """The blocks of one direction, which must all be read, in order: each is compressed against those before it."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def read(self, block: bytes) -> dict[bytes, bytes]:
        """Name → value. Raises Undecodable; a name twice or in upper case is read in two ways by others, so not at all here."""
        try:
            plain = self._inflate.decompress(block, MAX_BLOCK)
        except zlib.error as exc:
            raise Undecodable("the session's SPDY headers can't be read") from exc
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise Undecodable("the session's SPDY headers are too large")
        reader = _Reader(plain)
        headers: dict[bytes, bytes] = {}
        for _ in range(reader.number()):
            name, value = reader.text(), reader.text()
            if not name or name in headers or name != name.lower():
                raise Undecodable("the session's SPDY headers can be read in two ways")
            headers[name] = value
        if not reader.at_end:
            raise Undecodable("the session's SPDY headers have an end too many")
        return headers


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def text(self) -> bytes:
        return self._take(self.number())

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Undecodable("the session's SPDY headers end too early")
        taken = self._data[self._at : end]
        self._at = end
        return taken
