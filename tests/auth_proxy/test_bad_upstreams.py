"""An API server that hangs, breaks, lies or is somebody else: the client gets a `Status` in time, or a torn connection, and the next
call is served as if nothing had been."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import ssl

import pytest

from services.auth_proxy import cluster_route
from tests.auth_proxy.bad_upstream import BROKEN, GOOD, ODD, SILENT, TORN, Authority, says
from tests.auth_proxy.recorder import read_reply

FIRST_BYTE_S = 0.5
SLACK_S = 2.5
"""The relay's clock ticks once a second, and the machine has other things to do."""
PATH = "/k8s/clusters/prod/api/v1/x"


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(cluster_route, "FIRST_BYTE_S", FIRST_BYTE_S)


async def ask(door, token, method="GET", path=PATH, body=b""):
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    reader, writer = await door.connect()
    try:
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: h\r\n{length}Authorization: Bearer {token}\r\n\r\n".encode() + body
        )
        async with asyncio.timeout(FIRST_BYTE_S + SLACK_S):
            return await read_reply(reader)
    finally:
        writer.close()


async def assert_well(door, token):
    reply = await ask(door, token, path="/k8s/clusters/prod/well")
    assert reply.raw.endswith(b"\r\n\r\nok")


def is_status(reply, code):
    document = json.loads(reply.body)
    return reply.status == code and document["kind"] == "Status" and document["code"] == code and document["message"]


@pytest.mark.parametrize("way", SILENT)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_silent_server_is_504_in_time(door, bad, way, method, eventually):
    token = await door.member()
    bad.way = SILENT[way]
    async with door.agent("prod", bad.address) as agent:
        reply = await ask(door, token, method, body=b"{}" if method == "POST" else b"")
        assert is_status(reply, 504), reply.raw
        await assert_well(door, token)
        await eventually(lambda: not agent.serving)
    assert len(bad.heads) == 2, "a request that may have taken effect is not sent again"


@pytest.mark.parametrize("way", BROKEN)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_broken_answer_is_502_at_once(door, bad, way, method, eventually):
    token = await door.member()
    bad.way = BROKEN[way]
    async with door.agent("prod", bad.address) as agent:
        reply = await ask(door, token, method, body=b"{}" if method == "POST" else b"")
        assert is_status(reply, 502), reply.raw
        await assert_well(door, token)
        await eventually(lambda: not agent.serving)


@pytest.mark.parametrize("way", TORN)
async def test_answer_that_stops_is_torn_and_never_looks_whole(door, bad, way, eventually):
    token = await door.member()
    bad.way = TORN[way]
    async with door.agent("prod", bad.address) as agent:
        reader, writer = await door.connect()
        writer.write(
            f"GET {PATH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        raw = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(2 * FIRST_BYTE_S + SLACK_S):
                while piece := await reader.read(65536):
                    raw += piece
        writer.close()
        # What came before the break may be there or not; a whole answer may not.
        assert not raw or raw.startswith(b"HTTP/1.1 200 OK\r\n") or is_status(await _as_reply(raw), 502)
        assert not raw.endswith(b"0\r\n\r\n")
        assert raw.count(b"HTTP/1.1 ") <= 1
        await assert_well(door, token)
        await eventually(lambda: not agent.serving)


async def _as_reply(raw):
    reader = asyncio.StreamReader()
    reader.feed_data(raw)
    reader.feed_eof()
    return await read_reply(reader)


@pytest.mark.parametrize("way", ODD)
async def test_odd_but_whole_answer_arrives_once(door, bad, way, eventually):
    token = await door.member()
    bad.way = ODD[way]
    async with door.agent("prod", bad.address) as agent:
        for _ in range(3):
            reply = await door.talk(
                f"GET {PATH} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            assert reply.raw.endswith(b"\r\n\r\nok")
            assert reply.raw.count(b"HTTP/1.1 ") == 1
        await assert_well(door, token)
        await eventually(lambda: not agent.serving)
    assert len(bad.heads) == 4


@pytest.mark.parametrize(
    ("method", "status", "times"),
    [("GET", 200, 2), ("HEAD", 200, 2), ("POST", 502, 1), ("DELETE", 502, 1), ("PUT", 502, 1)],
)
async def test_kept_connection_that_closes_under_a_request_is_tried_again_for_safe_methods_only(
    door, bad, method, status, times
):
    """The server takes the request and hangs up; whether it did something nobody knows."""
    token = await door.member()
    async with door.agent("prod", bad.address):
        await assert_well(door, token)
        asked = bad.connections

        async def hangs_up_once(reader, writer):
            bad.way = says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        bad.way = hangs_up_once
        reply = await ask(door, token, method)
        assert reply.status == status
    assert sum(line.startswith(method.encode() + b" /api/v1/x") for line in bad.heads) == times
    assert bad.connections == asked + times - 1


async def test_early_answer_to_a_body_that_is_still_coming_arrives_and_ends_the_connection(door, bad):
    token = await door.member()
    bad.way = says(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    async with door.agent("prod", bad.address):
        reader, writer = await door.connect()
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            + b"a" * 5000
        )
        async with asyncio.timeout(FIRST_BYTE_S + SLACK_S):
            reply = await read_reply(reader)
        assert reply.status == 413
        assert b"Connection: close" in reply.head
        writer.close()
        await assert_well(door, token)


async def test_server_that_refuses_connections_is_503_and_comes_back(door, bad):
    token = await door.member()
    async with door.agent("prod", bad.address):
        await bad.stop()
        reply = await ask(door, token)
        assert is_status(reply, 503), reply.raw
        assert b"Retry-After" not in reply.head
        await bad.start()
        await assert_well(door, token)


async def test_server_that_never_finishes_its_tls_handshake_is_503_after_the_time_to_connect(door, bad):
    """The time is 5 s; here it is shorter."""
    token = await door.member()

    async def silent(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = dataclasses.replace(bad.address(), port=port, tls=ssl.create_default_context())
    async with door.agent("prod", lambda: address) as agent:
        agent._terminal._pool._connect_timeout_s = 0.3
        reply = await ask(door, token)
        assert is_status(reply, 503), reply.raw
        assert "did not answer within 0.3 s" in json.loads(reply.body)["message"]
    server.close()


async def test_server_with_another_certificate_goes_on_if_its_ca_is_the_same_and_is_502_if_not(door, bad, tmp_path):
    token = await door.member()
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    tls = ssl.create_default_context(cafile=str(ours.file))
    await bad.stop()
    await bad.start(ours.server_context("first"))
    bad.way = says(GOOD)
    async with door.agent("prod", lambda: dataclasses.replace(bad.address(), tls=tls, server_hostname="127.0.0.1")):
        await assert_well(door, token)
        for name, authority, days, good in [
            ("second", ours, 1, True), ("stranger", theirs, 1, False), ("third", ours, 1, True), ("expired", ours, -1, False), ("fourth", ours, 1, True),
        ]:  # fmt: skip
            await bad.stop()
            await bad.start(authority.server_context(name, days=days))
            heads = len(bad.heads)
            if good:
                await assert_well(door, token)
            else:
                reply = await ask(door, token)
                assert is_status(reply, 502), reply.raw
                assert "certificate" in json.loads(reply.body)["message"]
                assert len(bad.heads) == heads, "the credential was sent to a stranger"


async def test_watch_may_be_silent_for_as_long_as_it_likes(door, bad):
    token = await door.member()
    bad.way = SILENT["hangs before the head"]
    async with door.agent("prod", bad.address):
        with pytest.raises(TimeoutError):
            await ask(door, token, path=PATH + "?watch=true")
