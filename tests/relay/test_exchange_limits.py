"""What an exchange bears from either side, and for how long: floods of interim heads, answers that stop, bodies that trickle."""

from __future__ import annotations

import asyncio

import pytest

from libs.common.relay import exchange
from tests.relay.conftest import answer, read_head

GET = b"GET /a HTTP/1.1\r\nHost: hub\r\n\r\n"


def replying(reply: bytes):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(reply)
        await reader.read()

    return script


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])
@pytest.mark.parametrize("count", [33, 20_000])
async def test_more_interim_heads_than_any_server_sends_are_502(make_rig, interim, count):
    rig = await make_rig(replying(interim * count + answer()))
    reply = await rig.talk(GET, until=b"}\n")
    assert reply.startswith(b"HTTP/1.1 502 ")
    assert b'"kind": "Status"' in reply


async def test_a_few_interim_heads_are_passed_over(make_rig):
    rig = await make_rig(replying(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 32 + answer()))
    assert (await rig.talk(GET, until=b"ok")).startswith(b"HTTP/1.1 200 ")


async def test_continue_is_said_once_and_only_to_who_asked(make_rig):
    async def script(reader, writer):
        while True:
            head = await read_head(reader)
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 5)
            if b"Expect" in head:
                await reader.readexactly(3)
            writer.write(answer())

    rig = await make_rig(script)
    assert b"100 Continue" not in await rig.talk(GET, until=b"ok")
    asking = b"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
    assert (await rig.talk(asking, until=b"ok")).count(b"100 Continue") == 1


async def test_answer_head_beyond_64_kib_is_502_also_when_it_comes_at_once(make_rig):
    rig = await make_rig(replying(answer(extra=b"X-Long: %s\r\n" % (b"a" * 70_000))))
    assert (await rig.talk(GET, until=b"}\n")).startswith(b"HTTP/1.1 502 ")


async def test_body_that_is_broken_from_its_first_byte_is_still_an_error_answer(make_rig):
    rig = await make_rig(replying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"))
    assert (await rig.talk(GET, until=b"}\n")).startswith(b"HTTP/1.1 502 ")


async def test_short_answer_that_stops_in_the_middle_is_torn_after_the_time_limit(make_rig):
    rig = await make_rig(replying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), first_byte_s=0.2)
    began = asyncio.get_running_loop().time()
    reply = b""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(GET)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(5):
            reply = await reader.readuntil(b"never")
    writer.close()
    assert asyncio.get_running_loop().time() - began >= 0.2
    assert not reply


async def test_answer_without_limit_may_be_silent_in_the_middle(make_rig):
    rig = await make_rig(replying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"))
    with pytest.raises(TimeoutError):
        await rig.talk(GET, timeout_s=0.5)


async def test_answer_may_be_slow_as_long_as_it_comes(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for _ in range(5):
            await asyncio.sleep(0.15)
            writer.write(b"x")
        await reader.read()

    rig = await make_rig(script, first_byte_s=0.4)
    assert (await rig.talk(GET, until=b"xxxxx")).startswith(b"HTTP/1.1 200 ")


async def test_body_that_comes_a_byte_at_a_time_is_408(make_rig, monkeypatch):
    monkeypatch.setattr(exchange, "_BODY_IDLE_S", 0.3)

    async def script(reader, writer):
        await reader.read()

    rig = await make_rig(script, first_byte_s=5)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n")
    answered = asyncio.ensure_future(read_head(reader))
    for _ in range(50):
        if answered.done():
            break
        writer.write(b"x")
        await asyncio.sleep(0.05)
    assert (await answered).startswith(b"HTTP/1.1 408 ")
    writer.close()
