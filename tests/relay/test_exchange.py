"""One request through the relay: framing, keep-alive, retries, refusals, upgrades, backpressure."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from libs.common.relay.pool import Address
from tests.relay.conftest import answer, read_head

GET = b"GET /a HTTP/1.1\r\nHost: hub\r\n\r\n"
UPGRADE = b"POST /exec HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"


async def serve_forever(reader, writer):
    while True:
        await read_head(reader)
        writer.write(answer())


async def test_connections_are_reused_on_both_sides(make_rig):
    rig = await make_rig(serve_forever)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    for _ in range(5):
        writer.write(GET)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    assert rig.connections == 1


async def test_pipelined_requests_are_answered_in_order_one_at_a_time(make_rig):
    seen = []

    async def script(reader, writer):
        while True:
            head = await read_head(reader)
            seen.append(head.split(b" ")[1])
            await asyncio.sleep(0.01)
            writer.write(answer(seen[-1]))

    rig = await make_rig(script)
    heads = [b"GET /%d HTTP/1.1\r\nHost: hub\r\n\r\n" % i for i in range(20)]
    reply = await rig.talk(b"".join(heads), until=b"\r\n\r\n/19")
    assert seen == [b"/%d" % i for i in range(20)]
    assert reply.count(b"200 OK") == 20
    assert rig.connections == 1


async def test_a_thousand_pipelined_bad_paths_do_not_exhaust_the_stack(make_rig):
    rig = await make_rig(serve_forever)
    many = (b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n" * 1500) + b"GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    reply = await rig.talk(many, timeout_s=20)
    assert reply.count(b"200 OK") == 1501


async def test_request_body_with_length_and_chunked_pass_unchanged(make_rig):
    bodies = []

    async def script(reader, writer):
        head = await read_head(reader)
        if b"chunked" in head:
            bodies.append(await reader.readuntil(b"0\r\n\r\n"))
        else:
            bodies.append(await reader.readexactly(5))
        writer.write(answer())
        await script(reader, writer)

    rig = await make_rig(script)
    await rig.talk(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", until=b"ok")
    chunked = b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"
    await rig.talk(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked, until=b"ok")
    assert bodies == [b"hello", chunked]


async def test_expect_100_continue_goes_end_to_end(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(3)
        writer.write(answer())

    rig = await make_rig(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert await read_head(reader) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"abc")
    assert b"200 OK" in await read_head(reader)
    writer.close()


async def test_response_framings_reach_the_client_whole(make_rig):
    replies = {
        b"/len": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        b"/chunked": (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
            b"X-Sum: 1\r\n\r\n",
        ),
        b"/close": (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        b"/204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"\r\n\r\n"),
        b"/304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b"\r\n\r\n"),
        b"/hints": (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz", b"z"),
    }

    async def script(reader, writer):
        head = await read_head(reader)
        for byte in replies[head.split(b" ")[1]][0]:
            writer.write(bytes([byte]))
            await writer.drain()
        if b"/close" not in head:
            await script(reader, writer)

    rig = await make_rig(script)
    for path, (_, end) in replies.items():
        reply = await rig.talk(b"GET %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % path)
        assert reply.endswith(end), path
        assert b"103" not in reply
        assert b"Connection: close\r\n" in reply


async def test_head_has_a_length_and_no_body(make_rig):
    async def script(reader, writer):
        while True:
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")

    rig = await make_rig(script)
    two = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n" * 2
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(two)
    assert b"Content-Length: 500" in await read_head(reader)
    assert b"Content-Length: 500" in await read_head(reader)
    writer.close()


async def test_stale_kept_connection_is_retried_once_for_a_safe_request(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(answer())
        await read_head(reader)  # takes the second request and hangs up

    rig = await make_rig(script)
    for _ in range(3):
        assert b"200 OK" in await rig.talk(GET, until=b"ok")
    assert rig.connections == 3


async def test_stale_kept_connection_is_not_retried_for_a_post(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(answer())
        await read_head(reader)

    rig = await make_rig(script)
    assert b"200 OK" in await rig.talk(GET, until=b"ok")
    reply = await rig.talk(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 502 ")
    assert b'"kind": "Status"' in reply
    assert rig.connections == 1


async def test_answer_torn_in_the_middle_tears_the_client_too(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc")
        await writer.drain()

    rig = await make_rig(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(GET)
    try:
        data = await reader.read()
    except ConnectionResetError:
        data = b""
    assert not data.endswith(b"0\r\n\r\n")
    writer.close()


async def test_early_answer_to_an_unfinished_upload_closes_and_still_arrives(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(answer(b"too large"))
        await writer.drain()
        await reader.read()

    rig = await make_rig(script)
    reply = await rig.talk(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000)
    assert b"Connection: close" in reply
    assert reply.endswith(b"too large")


async def test_silent_server_is_504_after_the_time_limit(make_rig):
    async def script(reader, writer):
        await reader.read()

    rig = await make_rig(script, first_byte_s=0.2)
    reply = await rig.talk(GET[:-2] + b"Connection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 504 ")


async def test_client_that_goes_away_takes_the_upstream_request_with_it(make_rig):
    gone = asyncio.Event()

    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        gone.set()

    rig = await make_rig(script)
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(GET)
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.wait_for(gone.wait(), 2)


async def test_upgrade_is_spliced_after_101_with_bytes_that_came_early(make_rig):
    async def script(reader, writer):
        head = await read_head(reader)
        assert b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nfirst")
        while data := await reader.read(1000):
            writer.write(data.upper())

    rig = await make_rig(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(UPGRADE + b"early")
    assert b"101" in await read_head(reader)
    assert await reader.readexactly(10) == b"firstEARLY"
    writer.write(b"more")
    assert await reader.readexactly(4) == b"MORE"
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await asyncio.sleep(0.05)
    assert not rig.engine.sessions


async def test_splice_passes_half_close_and_the_bytes_after_it(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        size = len(await reader.read())
        writer.write(b"%d" % size + b"y" * 3_000_000)
        await writer.drain()

    rig = await make_rig(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(UPGRADE)
    await read_head(reader)
    writer.write(b"x" * 1_000_000)
    writer.write_eof()
    data = await asyncio.wait_for(reader.read(), 10)
    assert data[:7] == b"1000000"
    assert len(data) == 7 + 3_000_000
    writer.close()


async def test_refused_upgrade_closes_both_and_extra_bytes_never_arrive(make_rig):
    """CVE-2018-1002105: a failed upgrade must not leave a privileged connection open."""
    after = []

    async def script(reader, writer):
        await read_head(reader)
        writer.write(answer(b"no such pod", b"X-A: b\r\n").replace(b"200 OK", b"404 Not Found"))
        after.append(await reader.read())

    rig = await make_rig(script)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(UPGRADE + b"GET /secrets HTTP/1.1\r\nHost: h\r\n\r\n")
    reply = await reader.read()
    assert reply.endswith(b"no such pod")
    assert reply.count(b"HTTP/1.1") == 1
    writer.close()
    await asyncio.sleep(0.05)
    assert after == [b""]
    assert rig.connections == 1


async def test_switch_that_nobody_asked_for_is_502(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.read()

    rig = await make_rig(script)
    assert (await rig.talk(GET[:-2] + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 502 ")
    assert (await rig.talk(UPGRADE)).startswith(b"HTTP/1.1 502 ")


async def test_slow_reader_holds_its_own_upstream_and_nobody_else(make_rig):
    """The relay keeps a bounded part of an answer that nobody reads, and others don't notice."""
    written = [0]

    async def script(reader, writer):
        head = await read_head(reader)
        if b"/big" not in head:
            writer.write(answer())
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 400000000\r\n\r\n")
        for _ in range(4000):
            writer.write(b"z" * 100_000)
            await writer.drain()
            written[0] += 100_000

    rig = await make_rig(script)
    _reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1000)
    writer.write(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
    await asyncio.sleep(0.5)
    stuck = written[0]
    for _ in range(20):
        assert b"200 OK" in await rig.talk(GET, until=b"ok", timeout_s=0.5)
    assert written[0] == stuck
    assert stuck < 30_000_000
    writer.transport.abort()


async def test_head_that_never_ends_is_refused_after_its_time(make_rig):
    from libs.common.relay.server import Limits

    rig = await make_rig(serve_forever, body_limits=Limits(head_s=0.2, idle_s=0.4))
    assert (await rig.talk(b"GET / HTTP/1.1\r\nHost")).startswith(b"HTTP/1.1 408 ")
    assert await rig.talk(b"") == b""


async def test_head_over_64_kib_is_431(make_rig):
    rig = await make_rig(serve_forever)
    reply = await rig.talk(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 70_000)
    assert reply.startswith(b"HTTP/1.1 431 ")


async def test_broken_answer_is_502(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
        await reader.read()

    rig = await make_rig(script)
    assert (await rig.talk(GET[:-2] + b"Connection: close\r\n\r\n")).startswith(b"HTTP/1.1 502 ")


async def test_unreachable_server_is_503_with_its_name(make_rig):
    rig = await make_rig(serve_forever)
    rig.pool._address = lambda: Address("cluster x", "127.0.0.1", 1)
    reply = await rig.talk(GET[:-2] + b"Connection: close\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"cluster x cannot be reached" in reply
    assert b"Retry-After" not in reply


async def test_answer_to_an_upload_may_take_long_where_no_limit_is_set(make_rig, monkeypatch):
    from libs.common.relay import exchange

    monkeypatch.setattr(exchange, "_BODY_IDLE_S", 0.2)

    async def script(reader, writer):
        await read_head(reader)
        await reader.readexactly(3)
        await asyncio.sleep(0.6)
        writer.write(answer())

    rig = await make_rig(script)
    assert b"200 OK" in await rig.talk(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", until=b"ok")


async def test_body_that_stops_coming_is_408_and_a_slow_one_is_not(make_rig, monkeypatch):
    from libs.common.relay import exchange

    monkeypatch.setattr(exchange, "_BODY_IDLE_S", 0.3)
    monkeypatch.setattr(exchange, "_MIN_BODY", 1)

    async def script(reader, writer):
        await read_head(reader)
        await reader.readexactly(5)
        writer.write(answer())

    rig = await make_rig(script, first_byte_s=0.3)
    assert (await rig.talk(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")).startswith(b"HTTP/1.1 408 ")
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
    for _ in range(5):
        await asyncio.sleep(0.15)
        writer.write(b"x")
    assert b"200 OK" in await read_head(reader)
    writer.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 61, 4096])
async def test_requests_torn_at_any_place_arrive_the_same(make_rig, size):
    seen = []

    async def script(reader, writer):
        while True:
            head = await read_head(reader)
            body = b""
            if b"chunked" in head:
                body = await reader.readuntil(b"0\r\n\r\n")
            elif b"Content-Length" in head:
                body = await reader.readexactly(4)
            seen.append((head.split(b" ")[1], body))
            writer.write(answer(b"%d" % len(seen)))

    rig = await make_rig(script)
    stream = (
        b"GET /1 HTTP/1.1\r\nHost: h\r\n\r\n"
        b"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd"
        b"PUT /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        b"GET /4 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    for start in range(0, len(stream), size):
        writer.write(stream[start : start + size])
        await writer.drain()
        await asyncio.sleep(0)
    data = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert data.count(b"200 OK") == 4
    assert seen == [(b"/1", b""), (b"/2", b"abcd"), (b"/3", b"2\r\nab\r\n0\r\n\r\n"), (b"/4", b"")]


@pytest.mark.parametrize(
    ("fields", "kept"), [(b"Accept: x\r\n", True), (b"A: " + b"x" * 40_000 + b"\r\n", False), (b"a:\r\n" * 1000, False)]
)
async def test_a_connection_that_rests_keeps_no_large_head(make_rig, fields, kept):
    rig = await make_rig(serve_forever)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"GET /a HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n")
    await reader.readuntil(b"ok")
    (session,) = rig.engine.sessions
    assert (session._block is not None) is kept
    writer.close()
