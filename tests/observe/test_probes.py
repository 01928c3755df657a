"""The small HTTP server of probes: right answers, and no patience with what is no probe."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from libs.common import errors
from libs.common.observe import probes


@pytest.fixture
async def port():
    answers = {"/good": lambda: probes.verdict([]), "/bad": lambda: probes.verdict(["bread", "salt"])}
    async with probes.serve("127.0.0.1:0", answers) as (host, port):
        assert host == "127.0.0.1"
        yield port


async def send(port, data):
    """What comes back until the server ends the connection; nothing when it cuts it off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        try:
            writer.write(data)
            async with asyncio.timeout(5):
                return (await reader.read()).decode()
        except ConnectionError:
            return ""


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET /good HTTP/1.1", 200, "ok\n"),
        ("GET /good?verbose=1 HTTP/1.0", 200, "ok\n"),
        ("HEAD /good HTTP/1.1", 200, ""),
        ("GET /bad HTTP/1.1", 503, "waiting for bread\nwaiting for salt\n"),
        ("GET /else HTTP/1.1", 404, "there are /bad, /good\n"),
        ("POST /good HTTP/1.1", 405, "only GET and HEAD\n"),
        ("nonsense", 400, "this is an HTTP/1.1 server\n"),
    ],
)
async def test_each_request_gets_its_answer_and_the_connection_ends(port, request_line, status, body):
    answer = await send(port, f"{request_line}\r\nHost: x\r\n\r\n".encode())
    head, _, got = answer.partition("\r\n\r\n")
    assert head.split(" ")[1] == str(status)
    assert got == body
    assert f"Content-Length: {len(body) if not request_line.startswith('HEAD') else 3}" in head


async def test_a_head_in_pieces_is_put_together(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with closing(writer):
        for piece in (b"GET /go", b"od HTTP/1.1\r\nHos", b"t: x\r\n\r", b"\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")


async def test_a_head_without_end_is_cut_off(port):
    assert await send(port, b"GET /good HTTP/1.1\r\nX: " + b"x" * 2 * probes.HEAD_LIMIT_BYTES) == ""


async def test_a_silent_connection_is_cut_off(port, monkeypatch):
    monkeypatch.setattr(probes, "PATIENCE_S", 0.05)
    assert await send(port, b"GET /good") == ""


async def test_a_taken_address_is_said_in_a_sentence(port):
    with pytest.raises(errors.Unavailable, match=f"cannot answer probes on .*{port}"):
        async with probes.serve(f"127.0.0.1:{port}", {}):
            pass


@pytest.mark.parametrize("listen", ["", "nowhere", "127.0.0.1:70000", "127.0.0.1:x"])
async def test_an_address_that_is_none_is_said_in_a_sentence(listen):
    with pytest.raises(errors.Unavailable, match="HOST:PORT"):
        async with probes.serve(listen, {}):
            pass
