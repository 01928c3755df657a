"""Prometheus figures of the front door: calls by target, verb and class of status, bytes, and what is open. No names, no ids.

Every call passes here, so a call only adds to plain numbers; the metrics are made of them when somebody looks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import cache

from prometheus_client import Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from libs.common.observe import metrics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0)
_BOUNDS = (*map(floatToGoString, _SECONDS), "+Inf")
_VERBS = frozenset(
    {
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "options",
        "head",
        "post",
        "proxy",
        "put",
    }
)


class _Series:
    """The calls of one label set: how many ended within each bound (not yet cumulated), and their time together."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.seconds = 0.0


class _Calls(Collector):
    """What `Figures` counts, for the process's registry."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str, str], _Series] = {}
        self.bytes_in = 0
        self.bytes_out = 0

    def collect(self) -> Iterator[HistogramMetricFamily | CounterMetricFamily]:
        labels = ["target", "verb", "status"]
        seconds = HistogramMetricFamily("herdsman_call_seconds", "Time from a call's head to its end", labels=labels)
        for key, series in list(self.series.items()):
            total = 0
            buckets = []
            for bound, count in zip(_BOUNDS, series.counts, strict=True):
                total += count
                buckets.append((bound, float(total)))
            seconds.add_metric(list(key), buckets=buckets, sum_value=series.seconds)
        yield seconds
        moved = CounterMetricFamily("herdsman_call_bytes", "Bytes of bodies and streams", labels=["direction"])
        moved.add_metric(["in"], self.bytes_in)
        moved.add_metric(["out"], self.bytes_out)
        yield moved


@cache
def _calls() -> _Calls:
    collector = _Calls()
    metrics.registry().register(collector)
    return collector


@cache
def _gauge(name: str, words: str) -> Gauge:
    return Gauge(name, words, registry=metrics.registry())


class Figures:
    """One per front door. A series is looked up by what the call at hand knows; its labels are made once."""

    def __init__(self) -> None:
        self._all = _calls()
        self._series: dict[tuple[bool, str, int], _Series] = {}

    def observe(self, in_cluster: bool, verb: str, status: int, took_s: float, bytes_in: int, bytes_out: int) -> None:
        series = self._series.get((in_cluster, verb, status))
        if series is None:
            series = self._find(in_cluster, verb, status)
        series.counts[bisect_left(_SECONDS, took_s)] += 1
        series.seconds += took_s
        self._all.bytes_in += bytes_in
        self._all.bytes_out += bytes_out

    def follow(self, name: str, words: str, read: Callable[[], int]) -> None:
        """A gauge whose value is asked for when somebody looks."""
        _gauge(name, words).set_function(read)

    def _find(self, in_cluster: bool, verb: str, status: int) -> _Series:
        """The series, remembered only for verbs that we know: clients choose the method, and there is no end of others."""
        known = verb if verb in _VERBS else "other"
        key = ("cluster" if in_cluster else "hub", known, f"{status // 100}xx")
        series = self._all.series.setdefault(key, _Series())
        if known == verb:
            self._series[(in_cluster, verb, status)] = series
        return series
