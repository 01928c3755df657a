"""Prometheus metrics that every process has. Labels never hold unbounded ids (no cluster, user or object names).

A module that measures something of its own makes its collectors in its constructor on `registry()`.
"""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@cache
def registry() -> CollectorRegistry:
    """This process's registry, with process and platform figures."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    return made


@cache
def method_seconds() -> Histogram:
    """Time that this service took to answer a bus method, by method and outcome (`ok` or the error's reason)."""
    return Histogram(
        "herdsman_method_seconds",
        "Time to answer a bus method",
        ["method", "outcome"],
        buckets=_SECONDS,
        registry=registry(),
    )


@cache
def informer_relists() -> Counter:
    """How often an informer had to list again; growing without faults elsewhere means a fault here."""
    return Counter("herdsman_informer_relists_total", "Complete listings of a bucket", ["bucket"], registry=registry())


@cache
def informer_revision() -> Gauge:
    """The revision that an informer has reached; compare between processes to see lag."""
    return Gauge("herdsman_informer_revision", "Last revision seen", ["bucket"], registry=registry())


@cache
def loop_lag_seconds() -> Histogram:
    """How late the event loop runs a timer: above 20 ms something blocks it."""
    return Histogram("herdsman_loop_lag_seconds", "Lateness of a timer", buckets=_SECONDS, registry=registry())


def render() -> bytes:
    """The exposition text of all metrics of this process."""
    return generate_latest(registry())
