"""Prometheus figures of the audit log."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import Counter, Gauge

from libs.common.observe import metrics


@cache
def _counter(name: str, words: str) -> Counter:
    return Counter(name, words, registry=metrics.registry())


@cache
def _gauge(name: str, words: str) -> Gauge:
    return Gauge(name, words, registry=metrics.registry())


class AuditFigures:
    """`written`, `dropped`: events; `refused`: calls that were not let in because there was no room; `malformed`: heads that are no request."""

    def __init__(self) -> None:
        self.written = _counter("herdsman_audit_events_written", "Audit events in the spool")
        self.dropped = _counter("herdsman_audit_events_dropped", "Audit events lost for want of room")
        self.refused = _counter("herdsman_audit_calls_refused", "Calls refused because the audit log was full")
        self.malformed = _counter("herdsman_audit_malformed_requests", "Requests whose head could not be read")

    def follow(self, spool_bytes: Callable[[], int], lag_s: Callable[[], float], queued: Callable[[], int]) -> None:
        """Gauges whose values are asked for when somebody looks."""
        _gauge("herdsman_audit_spool_bytes", "Bytes that wait for the bus").set_function(spool_bytes)
        _gauge("herdsman_audit_publish_lag_seconds", "Age of the oldest batch that waits").set_function(lag_s)
        _gauge("herdsman_audit_queue_events", "Events not written yet").set_function(queued)
