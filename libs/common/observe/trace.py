"""Trace context across HTTP, the bus and the tunnel (W3C Trace Context), recorded by OpenTelemetry when an endpoint is set.

The SDK is imported only when there is somewhere to send spans: it costs memory that an agent does not have to spare.
Without it the context still passes through, so that a caller's trace is not torn here.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

HEADER = "traceparent"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_current: ContextVar[str] = ContextVar("traceparent", default="")
_tracer: Any = None


def configure(service: str, endpoint: str, sample_ratio: float = 0.1) -> None:
    """Record spans and send them to an OTLP/HTTP `endpoint`; empty = record nothing. Needs the `otlp` extra."""
    global _tracer
    if not endpoint:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    provider = TracerProvider(
        resource=Resource.create({"service.name": f"herdsman-{service}"}), sampler=ParentBasedTraceIdRatio(sample_ratio)
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _tracer = provider.get_tracer("herdsman")


def is_valid(traceparent: str) -> bool:
    """Whether a header from outside may be passed on."""
    return _TRACEPARENT.fullmatch(traceparent) is not None


def current() -> str:
    """The `traceparent` to send with what this task calls; empty when it is in no trace."""
    return _current.get()


def current_trace_id() -> str:
    return _current.get()[3:35]


@contextmanager
def span(name: str, parent: str = "", attributes: Mapping[str, str | int] | None = None) -> Iterator[None]:
    """Run a piece of work as a span under `parent` (a traceparent header) or under the current one."""
    before = parent if is_valid(parent) else _current.get()
    if _tracer is None:
        reset = _current.set(before)
        try:
            yield
        finally:
            _current.reset(reset)
        return
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    context = propagator.extract({HEADER: before} if before else {})
    with _tracer.start_as_current_span(name, context=context, attributes=dict(attributes or {})) as recorded:
        carrier: dict[str, str] = {}
        propagator.inject(carrier, set_span_in_context(recorded))
        reset = _current.set(carrier.get(HEADER, ""))
        try:
            yield
        finally:
            _current.reset(reset)


def new_request_id() -> str:
    """96 random bits in hex: for a request that brought none."""
    return secrets.token_hex(12)
