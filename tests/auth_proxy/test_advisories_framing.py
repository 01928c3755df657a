"""Request smuggling: a head or a body that two readers could divide differently is refused, and nothing of it reaches the cluster."""

from __future__ import annotations

import pytest

from tests.auth_proxy.recorder import OK, PATH, REFUSED, identity_lines

LINES = {
    "obs-fold": ["X-A: b\r\n Impersonate-User: admin"],
    "obs-fold with a tab": ["X-A: b\r\n\tImpersonate-User: admin"],
    "obs-fold of a known header": ["Accept: a\r\n Content-Length: 5"],
    "bare LF": ["X-A: b\nImpersonate-User: admin"],
    "bare LF and LF": ["X-A: b\n\nGET /x HTTP/1.1"],
    "bare CR": ["X-A: b\rImpersonate-User: admin"],
    "CR CR LF": ["X-A: b\r\r\nImpersonate-User: admin"],
    "NUL": ["X-A: b\0Impersonate-User: admin"],
    "NUL in a name": ["X\0A: b"],
    "line without colon": ["Impersonate-User"],
    "Content-Length and Transfer-Encoding": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "Transfer-Encoding and Content-Length": ["Transfer-Encoding: chunked", "Content-Length: 5"],
    "Content-Length 0 and Transfer-Encoding": ["Content-Length: 0", "Transfer-Encoding: chunked"],
    "two Content-Lengths": ["Content-Length: 5", "Content-Length: 6"],
    "two equal Content-Lengths": ["Content-Length: 0", "Content-Length: 0"],
    "Content-Length list": ["Content-Length: 5, 5"],
    "Content-Length with plus": ["Content-Length: +5"],
    "Content-Length with minus": ["Content-Length: -5"],
    "Content-Length with minus zero": ["Content-Length: -0"],
    "Content-Length in hexadecimal": ["Content-Length: 0x5"],
    "Content-Length with a blank inside": ["Content-Length: 1 0"],
    "Content-Length with an underscore": ["Content-Length: 1_0"],
    "Content-Length in other digits": ["Content-Length: \u00b2"],
    "Content-Length beyond 64 bits": ["Content-Length: 18446744073709551621"],
    "Content-Length empty": ["Content-Length:"],
    "Content-Length with a fraction": ["Content-Length: 5.0"],
    "Transfer-Encoding twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
    "Transfer-Encoding with more": ["Transfer-Encoding: gzip, chunked"],
    "Transfer-Encoding chunked, identity": ["Transfer-Encoding: chunked, identity"],
    "Transfer-Encoding chunked, chunked": ["Transfer-Encoding: chunked, chunked"],
    "Transfer-Encoding identity": ["Transfer-Encoding: identity"],
    "Transfer-Encoding xchunked": ["Transfer-Encoding: xchunked"],
    "Transfer-Encoding empty": ["Transfer-Encoding:"],
    "Transfer-Encoding quoted": ['Transfer-Encoding: "chunked"'],
    "Transfer-Encoding with a parameter": ["Transfer-Encoding: chunked;q=1"],
    "Transfer-Encoding with a comma": ["Transfer-Encoding: chunked,"],
    "Transfer-Encoding after a vertical tab": ["Transfer-Encoding: \x0bchunked"],
    "Transfer-Encoding with a tab after it": ["Transfer-Encoding: chunked\t"],
    "Transfer-Encoding before the colon": ["Transfer-Encoding : chunked"],
    "Transfer-Encoding in another alphabet": ["Transfer-Encoding: \u00e7hunked"],
    "Transfer-Encoding in two lines": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    "two Hosts": ["Host: other"],
    "unknown expectation": ["Expect: 200-maybe"],
    "two expectations": ["Expect: 100-continue", "Expect: 100-continue"],
    "too many fields": ["a:"] * 5000,
}  # fmt: skip


async def test_request_smuggling_heads_that_two_readers_divide_differently_are_refused(scene):
    faults = []
    for what, lines in LINES.items():
        faults += await scene.refuses(what, lines)
        faults += await scene.refuses(what, lines, method="POST")
    assert not faults


async def test_request_smuggling_a_tab_before_chunked_is_read_as_a_blank_and_written_anew(scene):
    reply = await scene.say(["Transfer-Encoding:\tchunked"], method="POST", after=b"0\r\n\r\n")
    assert reply.status == 200
    (head, rest) = bytes(scene.upstream.connections[0]).split(b"\r\n\r\n", 1)
    assert b"Transfer-Encoding: chunked\r\n" in head
    assert rest == b"0\r\n\r\n"


FIRST_LINES = [
    b"GET %s\r\n", b"GET %s HTTP/0.9\r\n", b"GET %s HTTP/1.2\r\n", b"GET %s HTTP/1.10\r\n", b"GET %s HTTP/2\r\n", b"GET  %s HTTP/1.1\r\n",
    b"GET %s  HTTP/1.1\r\n", b"GET %s HTTP/1.1 \r\n", b"GET\t%s\tHTTP/1.1\r\n", b" GET %s HTTP/1.1\r\n", b"\r\nGET %s HTTP/1.1\r\n",
    b"GET %s http/1.1\r\n", b"get %s HTTP/1.1\r\n", b"GET %s HTTP/1.1\n", b"G\0T %s HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%s", b"CONNECT %s HTTP/1.1\r\n",
    b"%s\r\n", b"GET %s HTTP/1,1\r\n", b"\x16\x03\x01\x02\x00\x01 %s",
]  # fmt: skip


@pytest.mark.parametrize("line", FIRST_LINES)
async def test_request_smuggling_first_lines_are_exact(scene, line):
    head = line % PATH.encode() + f"Host: h\r\nAuthorization: Bearer {scene.token}\r\n\r\n".encode()
    reply = await scene.raw(head)
    assert reply.status in REFUSED
    assert not scene.upstream.heads


BODIES = [
    b"5\r\nhello\r\n0\r\nImpersonate-User: admin\r\n\r\n", b"0\r\nAuthorization: Bearer x\r\n\r\n", b"0\r\nX_Remote_User: a\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nHost: b\r\n\r\n", b"0\r\nConnection: close\r\n\r\n",
    b"5\nhello\n0\n\n", b"5\r\nhello0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n", b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5;\0\r\nhello\r\n0\r\n\r\n",
    b"10000000000000005\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n0\r\nA : b\r\n\r\n", b"5\r\nhello\r\n0\r\n folded\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n",
    b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n", b"0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
]  # fmt: skip


async def test_request_smuggling_bodies_that_two_readers_divide_differently_never_end(scene):
    """What was broken has no end: the connection towards the cluster is cut before anything behind it can be read as a request."""
    second = f"GET {PATH}/second HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {scene.token}\r\n\r\n".encode()
    for body in BODIES:
        scene.upstream.clear()
        reply = await scene.say(["Transfer-Encoding: chunked"], method="POST", after=body + second)
        assert reply.status in (200, 400), body
        assert b"Connection: close" in reply.head, body
        got = b"".join(scene.upstream.connections)
        assert b"/second" not in got, body
        for name in (b"Impersonate-User: admin", b"Bearer x", b"X_Remote_User"):
            assert name not in got, body


async def test_request_smuggling_a_request_in_a_body_stays_a_body(scene):
    """Both requests of a pipeline arrive as two, each with its own identity; the one in the body stays there."""
    inner = b"GET /api/v1/inner HTTP/1.1\r\nHost: h\r\nImpersonate-User: admin\r\n\r\n"
    for framing, body in [
        (f"Content-Length: {len(inner)}", inner),
        ("Transfer-Encoding: chunked", b"%x;x=y\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)),
    ]:
        scene.upstream.clear()
        reader, writer = await scene.door.connect()
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: h\r\n{framing}\r\nAuthorization: Bearer {scene.token}\r\n\r\n".encode() + body
            + f"GET {PATH}/second HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {scene.token}\r\n\r\n".encode()
        )  # fmt: skip
        replies = await reader.read()
        writer.close()
        assert replies.count(b"HTTP/1.1 200 OK") == 2
        got = b"".join(scene.upstream.connections)
        first = next(head for head in scene.upstream.heads if head.startswith(b"POST /api/v1/secrets HTTP/1.1\r\n"))
        second = next(head for head in scene.upstream.heads if head.startswith(b"GET /api/v1/secrets/second"))
        assert identity_lines(first) == identity_lines(second) == scene.identity
        assert got.count(inner) == 1
        assert got.count(b"Impersonate-User: herdsman:ada") == 2
    assert scene.upstream.reply == OK


async def test_cve_2018_1002105_body_with_an_upgrade_is_refused(scene):
    for lines, body in [(["Content-Length: 5"], b"hello"), (["Transfer-Encoding: chunked"], b"0\r\n\r\n")]:
        for protocol in ("websocket", "SPDY/3.1"):
            reply = await scene.say([*lines, "Connection: Upgrade", f"Upgrade: {protocol}"], method="POST", after=body)
            assert reply.status == 400
    assert not scene.upstream.heads
