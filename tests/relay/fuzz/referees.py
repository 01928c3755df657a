"""How other parsers read a message: llhttp (Node's, through httptools, strict) and h11, which was written from the grammar.

Both return a `Reading`, or None where they refuse. Not compared: what they refuse and we would accept is the finding; what we refuse
and they accept is our business.
"""

from __future__ import annotations

from dataclasses import dataclass

import h11
import httptools

_HUGE = 1 << 20


@dataclass(frozen=True)
class Reading:
    """What a head means."""

    start: tuple[bytes, ...]
    """(method, target) of a request, (status,) of a response."""
    fields: tuple[tuple[bytes, bytes], ...]
    """Names in lower case, values without blanks around them, in order."""
    keep_alive: bool
    upgrade: bool


class _Collector:
    """`keep_alive` is asked for at the end of the head: with the end of the message the parser forgets it."""

    def __init__(self) -> None:
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser
        self.keep_alive = False
        self.fields: list[tuple[bytes, bytes]] = []
        self.url = b""
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.strip(b" \t")))

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_headers_complete(self) -> None:
        self.complete = True
        self.keep_alive = self.parser.should_keep_alive()


def llhttp_request(raw: bytes) -> Reading | None:
    seen = _Collector()
    seen.parser = parser = httptools.HttpRequestParser(seen)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    if not seen.complete:
        return None
    start = (parser.get_method(), seen.url)
    return Reading(start, tuple(seen.fields), seen.keep_alive, parser.should_upgrade())


def llhttp_response(raw: bytes) -> Reading | None:
    seen = _Collector()
    seen.parser = parser = httptools.HttpResponseParser(seen)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    if not seen.complete:
        return None
    start = (b"%d" % parser.get_status_code(),)
    return Reading(start, tuple(seen.fields), seen.keep_alive, parser.should_upgrade())


def h11_request(raw: bytes) -> Reading | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_HUGE)
    connection.receive_data(raw)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request):
        return None
    fields = tuple((bytes(name), bytes(value)) for name, value in event.headers)
    options = {o.strip(b" \t").lower() for name, value in fields if name == b"connection" for o in value.split(b",")}
    new = event.http_version >= b"1.1"
    keep_alive = b"close" not in options and (new or b"keep-alive" in options)
    upgrade = b"upgrade" in options and any(name == b"upgrade" for name, _ in fields)
    return Reading((bytes(event.method), bytes(event.target)), fields, keep_alive, upgrade)


def h11_response(raw: bytes, method: bytes = b"GET") -> Reading | None:
    connection = h11_client(method)
    connection.receive_data(raw)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, (h11.Response, h11.InformationalResponse)):
        return None
    fields = tuple((bytes(name), bytes(value)) for name, value in event.headers)
    return Reading((b"%d" % event.status_code,), fields, True, False)


def h11_client(method: bytes) -> h11.Connection:
    """A client that has sent its request, one that may be answered with a switch of protocols."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HUGE)
    headers = [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket")]
    connection.send(h11.Request(method=method, target="/", headers=headers))
    connection.send(h11.EndOfMessage())
    return connection
