"""Prometheus figures of the front door: calls by target, verb and class of status, bytes, and what is open. No names, no ids."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from libs.common.observe import metrics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)


@cache
def _seconds() -> Histogram:
    labels = ["target", "verb", "status"]
    return Histogram(
        "herdsman_call_seconds",
        "Time from a call's head to its end",
        labels,
        buckets=_SECONDS,
        registry=metrics.registry(),
    )


@cache
def _bytes() -> Counter:
    return Counter("herdsman_call_bytes", "Bytes of bodies and streams", ["direction"], registry=metrics.registry())


@cache
def _gauge(name: str, words: str) -> Gauge:
    return Gauge(name, words, registry=metrics.registry())


class Figures:
    """A label set is looked up once and then kept: this is on the path of every call."""

    def __init__(self) -> None:
        self._in = _bytes().labels("in")
        self._out = _bytes().labels("out")
        self._children: dict[tuple[bool, str, int], Histogram] = {}

    def observe(self, in_cluster: bool, verb: str, status: int, took_s: float, bytes_in: int, bytes_out: int) -> None:
        key = (in_cluster, verb, status // 100)
        child = self._children.get(key)
        if child is None:
            target = "cluster" if in_cluster else "hub"
            child = self._children[key] = _seconds().labels(target, _known(verb), f"{status // 100}xx")
        child.observe(took_s)
        self._in.inc(bytes_in)
        self._out.inc(bytes_out)

    def follow(self, name: str, words: str, read: Callable[[], int]) -> None:
        """A gauge whose value is asked for when somebody looks."""
        _gauge(name, words).set_function(read)


def _known(verb: str) -> str:
    """Clients choose the method: one that nobody knows must not become a label of its own."""
    return verb if verb in ("get", "watch", "create", "update", "patch", "delete", "options") else "other"
