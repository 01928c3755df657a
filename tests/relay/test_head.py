"""Heads: what is accepted means one thing to everybody, what is refused is refused with a reason."""

from __future__ import annotations

import contextlib
import re
from unittest import mock

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common import errors
from libs.common.relay import head as head_module
from libs.common.relay import rebuild
from libs.common.relay.head import parse_request, parse_response
from libs.common.relay.names import KUBERNETES_REQUEST

GOOD = {
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n": {},
    b"GET /?a=b&c HTTP/1.1\r\nhOsT:a\r\n\r\n": {"host": b"a", "target": b"/?a=b&c"},
    b"GET / HTTP/1.0\r\n\r\n": {"close": True, "minor": 0},
    b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n": {"close": False},
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n": {"target": b"*"},
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n": {"content_length": 12, "has_body": True},
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n": {"chunked": True},
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Close\r\n\r\n": {"close": True},
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n": {"upgrade": b"spdy/3.1"},
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n": {"upgrade": b""},
    b"GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa9 \t\r\n\r\n": {},
    b"GET / HTTP/1.1\r\nHost: a\r\nKubectl_x: 1\r\n\r\n": {},
}
BAD = [
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    b"get / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /\x80 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
    b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
    b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * 5000 + b"\r\n",
]  # fmt: skip


@pytest.mark.parametrize("raw", GOOD)
def test_good_head_is_read(raw):
    head = parse_request(raw)
    for name, value in GOOD[raw].items():
        assert getattr(head, name) == value


@pytest.mark.parametrize("raw", BAD)
def test_bad_head_is_refused_with_a_sentence(raw):
    with pytest.raises(errors.BadRequest) as caught:
        parse_request(raw)
    assert " " in caught.value.message


BAD_RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 99 x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 O\x00K\r\n\r\n", b"HTTP/1.1 200 OK\r\n Folded: x\r\n\r\n", b"200 OK\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("raw", BAD_RESPONSES)
def test_bad_response_head_is_refused(raw):
    with pytest.raises(errors.BadRequest):
        parse_response(raw)


class _Oracle:
    def __init__(self):
        self.headers, self.url, self.done = [], b"", False

    def on_header(self, name, value):
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_url(self, url):
        self.url += url

    def on_headers_complete(self):
        self.done = True


PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n", b"Host: a\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"X-A: b\r\n", b" folded\r\n", b"\r\n", b"\n", b"\r", b"\0", b":", b" ",
        b"Impersonate-User: x\r\n", b"connection: impersonate-user\r\n", b"\tx", b"X : y\r\n", b"X_Y: z\r\n", b"\x80", b"HTTP/1.1",
    ]
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=12).map(b"".join), st.binary(max_size=8), st.integers(0, 200))
def test_whatever_passes_is_read_alike_by_llhttp(body, noise, at):
    """The parser that most servers use reads an accepted head with the same target and the same fields."""
    raw = b"GET / HTTP/1.1\r\nHost: a\r\n" + body
    raw = raw[:at] + noise + raw[at:] if at < len(raw) else raw
    raw = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    try:
        head = parse_request(raw)
    except errors.BadRequest:
        return
    oracle = _Oracle()
    parser = httptools.HttpRequestParser(oracle)
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserInvalidMethodError:
        return  # an unknown method: refused further on, read by nobody otherwise
    assert oracle.done
    assert oracle.url == head.target
    assert oracle.headers == [(lower, value) for lower, value, _ in head.fields]
    assert parser.get_method() == head.method


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_make_anything_but_a_head_or_a_refusal(data):
    for parse in (parse_request, parse_response):
        with contextlib.suppress(errors.BadRequest):
            parse(data + b"\r\n\r\n")


def test_rebuilt_head_keeps_repeated_fields_in_order_and_puts_the_identity_last():
    head = parse_request(
        b"POST /x HTTP/1.1\r\nHost: a\r\nX-Stream-Protocol-Version: v4\r\nAccept: a\r\nX-Stream-Protocol-Version: v3\r\n"
        b"Secret: x\r\nContent-Length: 3\r\n\r\n"
    )
    identity = b"Impersonate-User: herdsman:ada\r\n"
    built = rebuild.request_head(
        head, b"/y", allowed=KUBERNETES_REQUEST, host=b"up", own=[b"Authorization: Bearer t"], identity=identity
    )
    assert built == (
        b"POST /y HTTP/1.1\r\nHost: up\r\nX-Stream-Protocol-Version: v4\r\nAccept: a\r\nX-Stream-Protocol-Version: v3\r\n"
        b"Content-Length: 3\r\nAuthorization: Bearer t\r\n" + identity + b"\r\n"
    )
    rebuild.check_identity(built, identity)


@pytest.mark.parametrize(
    ("built", "identity"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b""), (b"GET / HTTP/1.1\r\n\r\n", b"Impersonate-User: a\r\n"),
        (b"GET / HTTP/1.1\r\nimpersonate-group: x\r\nImpersonate-User: a\r\n\r\n", b"Impersonate-User: a\r\n"),
        (b"GET / HTTP/1.1\r\nImpersonate-User: a\r\nX: y\r\n\r\n", b"Impersonate-User: a\r\n"),
        (b"GET / HTTP/1.1\r\nX: y\r\n\r\n", b"X: y\r\n"),
    ],
)  # fmt: skip
def test_head_without_exactly_this_identity_never_leaves(built, identity):
    with pytest.raises(errors.Internal):
        rebuild.check_identity(built, identity)


def test_a_group_that_looks_like_a_header_is_no_second_identity():
    identity = b"Impersonate-User: herdsman:a\r\nImpersonate-Group: herdsman:impersonate-x\r\n"
    rebuild.check_identity(b"GET / HTTP/1.1\r\n" + identity + b"\r\n", identity)


def test_the_same_fields_again_are_not_read_again_and_mean_the_same():
    first = parse_request(b"GET /a HTTP/1.1\r\nHost: h\r\nAccept: x\r\nX-Remote-User: root\r\n\r\n")
    again = parse_request(b"POST /b HTTP/1.1\r\nHost: h\r\nAccept: x\r\nX-Remote-User: root\r\n\r\n", first.block)
    assert again.block is first.block
    assert (again.method, again.target, again.fields) == (b"POST", b"/b", first.fields)
    assert [lower for lower, _, _ in again.claims] == [b"x-remote-user"]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /a HTTP/1.1\r\nHost: h\r\nAccept: y\r\n\r\n",
        b"GET /a HTTP/1.0\r\nHost: h\r\nAccept: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: h\r\nAccept: x\r\nA: b\r\n\r\n",
    ],
)
def test_other_bytes_are_read_whatever_came_before(raw):
    last = parse_request(b"GET /a HTTP/1.1\r\nHost: h\r\nAccept: x\r\n\r\n").block
    assert parse_request(raw, last).fields == parse_request(raw).fields
    assert parse_request(raw, last).block is not last


@pytest.mark.parametrize(
    "line", [b"FROB /a", b"CONNECT /a", b"get /a", b"GET  /a", b"GET http://h/a", b"GET /a#b", b"GET h:1"]
)
def test_a_first_line_is_judged_alike_with_and_without_a_known_block(line):
    last = parse_request(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n").block
    for block in (None, last):
        with pytest.raises(errors.BadRequest):
            parse_request(line + b" HTTP/1.1\r\nHost: h\r\n\r\n", block)


_LINE = st.sampled_from(
    [
        b"Content-Length: 5", b"Content-Length: 5 ", b"content-length:7", b"Content-Length: +5", b"Content-Length: 5, 5", b"Content-Length:", b"Content-Type: a/b",
        b"Content-Length : 5", b"Content-Lengths: 9", b"Transfer-Encoding: chunked", b"Connection: close", b"Set-Cookie: a=b", b"Set-Cookies: a=b", b"Date: x", b" folded",
        b"Bad Name: x", b"X: \x00", b"X: a\rb", b"TE: x", b"Tea: x", b"X-Any: \xe4", b"Set-Cookie2: a", b"Upgrade: x",
    ]
)  # fmt: skip


@given(
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 404", b"HTTP/1.0 200 OK", b"HTTP/1.1 101 x", b"HTTP/1.1 600 x", b"HTTP/1.1 200 \x01"]),
    st.lists(_LINE, max_size=5),
)  # fmt: skip
@settings(max_examples=600)
def test_the_short_way_through_an_answers_head_says_what_the_long_way_says(first, lines):
    raw = b"\r\n".join([first, *lines, b"", b""])
    with mock.patch.object(head_module, "_PLAIN_ANSWER", re.compile(rb"(?!)")):
        long = read_answer(raw)
    assert read_answer(raw) == long


def read_answer(raw):
    """All that the relay looks at; the kind of error for a head that is refused."""
    try:
        head = parse_response(raw)
    except errors.BadRequest:
        return "refused"
    return (
        head.status,
        head.minor,
        head.content_length,
        head.chunked,
        head.close,
        head.upgrade,
        list(head.noted),
        head.fields,
    )
