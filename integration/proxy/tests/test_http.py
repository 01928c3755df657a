"""HTTP/1.1 as clients really speak it, against the real API server: kept connections, pipelining, bursts of fresh ones, large answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os

import pytest

from integration.proxy.wire import PREFIX

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(300)]
MAPS = "/api/v1/namespaces/large/configmaps"
LONG = bool(os.environ.get("HERDSMAN_LONG_TESTS"))


async def read_answer(reader):
    """(status, body) of one answer with a length or in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    status = int(head.split(b" ", 2)[1])
    if b"transfer-encoding: chunked" not in lower:
        return status, await reader.readexactly(int(lower.partition(b"content-length: ")[2].split(b"\r\n")[0]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return status, body


def get(way, target, *lines):
    return "\r\n".join([f"GET {PREFIX}{target} HTTP/1.1", "Host: h", f"Authorization: Bearer {way.token}", *lines, "", ""]).encode()  # fmt: skip


async def test_one_connection_carries_many_requests_with_and_without_bodies(way):
    reader, writer = await way.door.connect()
    async with asyncio.timeout(60):
        for i in range(50):
            body = json.dumps({"metadata": {"name": f"kept-{i}"}, "data": {"i": str(i)}}).encode()
            target = f"{PREFIX}/api/v1/namespaces/default/configmaps?dryRun=All"
            writer.write(
                f"POST {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {way.token}\r\nContent-Type: application/json\r\n"
                f"Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
            )  # fmt: skip
            status, answer = await read_answer(reader)
            assert (status, json.loads(answer)["data"]) == (201, {"i": str(i)})
            writer.write(get(way, f"/api/v1/namespaces/default/configmaps/none-{i}"))
            status, answer = await read_answer(reader)
            assert (status, json.loads(answer)["details"]["name"]) == (404, f"none-{i}")
    writer.close()


async def test_pipelined_requests_are_answered_in_their_order(way):
    reader, writer = await way.door.connect()
    writer.write(b"".join(get(way, f"/api/v1/namespaces/default/configmaps/none-{i}") for i in range(100)))
    async with asyncio.timeout(60):
        names = [json.loads((await read_answer(reader))[1])["details"]["name"] for _ in range(100)]
    assert names == [f"none-{i}" for i in range(100)]
    writer.close()


async def test_fifty_fresh_tls_connections_at_once_are_all_served(way):
    async def one():
        reader, writer = await way.door.connect()
        writer.write(get(way, "/api/v1/namespaces?limit=5", "Connection: close"))
        async with asyncio.timeout(60):
            raw = await reader.read()
        writer.close()
        return raw

    answers = await asyncio.gather(*(one() for _ in range(50)))
    assert all(raw.startswith(b"HTTP/1.1 200 ") for raw in answers)


async def test_fifty_kubectls_at_once_are_all_served(way):
    assert (await way.kubectl("get", "namespaces")).code == 0  # one discovery is shared: the burst is of the calls
    answers = await asyncio.gather(*(way.kubectl("get", "namespaces", "-o", "name", timeout_s=120) for _ in range(50)))
    assert [answer.err for answer in answers if answer.code] == []


@pytest.mark.parametrize(
    ("count", "size"),
    [(80, 800_000), pytest.param(10_000, 6_000, marks=pytest.mark.skipif(not LONG, reason="HERDSMAN_LONG_TESTS is not set"))],
)  # fmt: skip
async def test_a_list_of_64_megabytes_has_every_byte(both, count, size):
    namespace = {"metadata": {"name": "large"}}
    form = {"Content_Type": "application/json"}
    await both.direct("POST", "/api/v1/namespaces", body=json.dumps(namespace).encode(), **form)
    slots = asyncio.Semaphore(16)

    async def make(i):
        async with slots:
            body = json.dumps({"metadata": {"name": f"c{i:05}"}, "data": {"x": os.urandom(size // 2).hex()}}).encode()
            answer = await both.direct("POST", MAPS, body=body, **form)
            assert answer.status == 201, answer.body[:300]

    try:
        await asyncio.gather(*(make(i) for i in range(count)))
        now = (await both.direct("GET", f"{MAPS}?labelSelector=none%3D1")).json()["metadata"]["resourceVersion"]
        target = f"{MAPS}?resourceVersion={now}&resourceVersionMatch=Exact"
        through, straight = await both.both("GET", target)
        assert len(through.body) > count * size
        assert hashlib.sha256(through.body).hexdigest() == hashlib.sha256(straight.body).hexdigest()
        packed = await both.both("GET", target, Accept_Encoding="gzip")
        assert packed[0].header("content-encoding") == "gzip"
        assert hashlib.sha256(packed[0].body).digest() == hashlib.sha256(packed[1].body).digest()
    finally:
        assert (await both.direct("DELETE", MAPS)).status == 200
