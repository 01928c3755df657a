"""Trace context: it passes through without a recorder, and with one the spans arrive at a real OTLP endpoint."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from libs.common.bus.memory import MemoryBus
from libs.common.contracts.messages import Empty
from libs.common.observe import trace

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


def test_what_is_no_traceparent_is_not_passed_on():
    for text in ("", "00-xyz", PARENT.upper(), PARENT + "\r\nX: y", "00-" + "0" * 10):
        assert not trace.is_valid(text)
        with trace.span("s", text):
            assert trace.current() == ""
    assert trace.is_valid(PARENT)


def test_a_span_without_a_recorder_hands_on_its_parent_and_ends_with_its_block():
    with trace.span("outer", PARENT):
        assert trace.current_trace_id() == TRACE_ID
        with trace.span("inner"):
            assert trace.current() == PARENT
    assert trace.current() == ""


async def test_the_trace_crosses_the_bus():
    bus = MemoryBus()
    heard: list[str] = []

    async def answer(message):
        heard.append(message.headers.get(trace.HEADER, ""))
        return Empty()

    async with bus.serve("svc.x.v1.y", answer, queue="x"):
        with trace.span("caller", PARENT):
            await bus.request("svc.x.v1.y", Empty(), Empty)
        await bus.request("svc.x.v1.y", Empty(), Empty)
    assert heard == [PARENT, ""]


@pytest.fixture
async def collector():
    """An OTLP/HTTP endpoint that keeps the bodies it gets."""
    bodies: list[bytes] = []

    async def take(request):
        bodies.append(await request.read())
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces", bodies
    await runner.cleanup()


async def test_spans_arrive_at_the_endpoint_under_their_parent(collector, monkeypatch):
    endpoint, bodies = collector
    monkeypatch.setattr(trace, "_tracer", None)
    trace.configure("tested", endpoint, sample_ratio=1.0)
    processor = trace._tracer.span_processor
    with trace.span("a-piece-of-work", PARENT, {"method": "write"}):
        within = trace.current()
    assert trace.is_valid(within)
    assert within[3:35] == TRACE_ID
    assert within != PARENT, "the span is a child, not its parent"
    assert await asyncio.to_thread(processor.force_flush, 5000)
    await asyncio.to_thread(processor.shutdown)
    received = b"".join(bodies)
    assert b"a-piece-of-work" in received
    assert bytes.fromhex(TRACE_ID) in received
    assert b"herdsman-tested" in received
