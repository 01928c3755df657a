"""One client that does not read must cost nobody else anything, through door, reverse connection and agent."""

from __future__ import annotations

import asyncio
import time

import pytest

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(240)]
PREFIX = "/k8s/clusters/prod"


async def measure(way, count):
    took = []
    reader, writer = await way.door.connect()
    request = f"GET {PREFIX}/version HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {way.token}\r\n\r\n".encode()
    for _ in range(count):
        began = time.monotonic()
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(size)
        took.append(time.monotonic() - began)
    writer.close()
    return sorted(took)


async def test_stalled_readers_slow_nobody_down_and_memory_stays(way):
    before = await measure(way, 200)
    stalled = []
    for _ in range(20):
        reader, writer = await asyncio.open_connection("localhost", way.door.port, ssl=way.door.client_tls(), limit=1)
        writer.write(
            f"GET {PREFIX}/openapi/v2 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {way.token}\r\n\r\n".encode()
        )
        await reader.read(1)
        stalled.append(writer)
    await asyncio.sleep(1)
    after = await measure(way, 200)
    p99_before, p99_after = before[-2], after[-2]
    print(
        f"p50 {before[100] * 1e3:.2f} → {after[100] * 1e3:.2f} ms, p99 {p99_before * 1e3:.2f} → {p99_after * 1e3:.2f} ms"
    )
    assert p99_after < max(5 * p99_before, 0.05)
    for writer in stalled:
        writer.transport.abort()


async def test_hundred_parallel_watches_all_hear_an_event_at_once(way):
    streams = []
    for _ in range(100):
        reader, writer = await way.door.connect()
        target = f"{PREFIX}/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dshout"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {way.token}\r\n\r\n".encode())
        streams.append((reader, writer))
    for reader, _ in streams:
        assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    assert (await way.kubectl("create", "configmap", "shout")).code == 0
    began = time.monotonic()
    for reader, _ in streams:
        assert b"ADDED" in await asyncio.wait_for(reader.readuntil(b"}\n"), 5)
    assert time.monotonic() - began < 1.5
    for _, writer in streams:
        writer.close()
    await way.kubectl("delete", "configmap", "shout")
    for _ in range(200):
        if not way.agent.serving:
            break
        await asyncio.sleep(0.05)
    assert not way.agent.serving
