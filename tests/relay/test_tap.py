"""Who must see the bytes of an exchange sees all of them, and what it cannot take does not go on."""

from __future__ import annotations

import pytest

from libs.common import errors
from tests.relay.conftest import answer, read_head

POST = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
UPGRADE = b"POST /exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"


class Seen:
    def __init__(self, full_at: str = "") -> None:
        self.request = b""
        self.response = b""
        self.status = 0
        self._full_at = full_at

    def request_bytes(self, data: bytes) -> None:
        self._check("request")
        self.request += data

    def response_head(self, head) -> None:
        self._check("head")
        self.status = head.status

    def response_bytes(self, data: bytes) -> None:
        self._check("response")
        self.response += data

    def _check(self, where: str) -> None:
        if where == self._full_at:
            raise errors.Unavailable("the audit log takes no more")


async def echo_body(reader, writer):
    await read_head(reader)
    writer.write(answer(await reader.readexactly(5)))


async def test_bodies_of_both_ways_are_seen_whole(make_rig):
    seen = Seen()
    rig = await make_rig(echo_body, tap=seen)
    await rig.talk(POST)
    assert (seen.request, seen.status, seen.response) == (b"hello", 200, b"hello")


async def test_both_streams_are_seen_after_a_switch(make_rig):
    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nfirst")
        assert await reader.readexactly(4) == b"ping"
        writer.write(b"pong")

    seen = Seen()
    rig = await make_rig(script, tap=seen)
    assert (await rig.talk(UPGRADE + b"ping")).endswith(b"firstpong")
    assert (seen.request, seen.status, seen.response) == (b"ping", 101, b"firstpong")


@pytest.mark.parametrize("where", ["request", "head"])
async def test_a_tap_that_takes_no_more_before_the_answer_makes_it_a_status(make_rig, where):
    rig = await make_rig(echo_body, tap=Seen(where))
    reply = await rig.talk(POST)
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"the audit log takes no more" in reply


async def test_a_tap_that_takes_no_more_within_the_answer_cuts_it(make_rig):
    rig = await make_rig(echo_body, tap=Seen("response"))
    assert b"hello" not in await rig.talk(POST)
