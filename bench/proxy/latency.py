"""What each proxy adds to the time of a call, at a fixed moderate rate."""

from __future__ import annotations

import statistics

import uvloop

from bench.proxy import scene
from bench.proxy.contestants import BACKEND, DOOR, TUNNEL, Cast
from bench.proxy.pace import pace
from bench.proxy.table import Row, Sayer, Table, quantile, spread

RATE = 200.0
NOTE = (
    f"{RATE:g} requests a second over {scene.CONNECTIONS} connections, constant rate: a call that has to wait for the one before it counts from\n"
    "when it was due. Added time is the difference to calls without a proxy in the same round."
)


def measure(cast: Cast, seconds: int, rounds: int, say: Sayer) -> Table:
    found: dict[str, list[tuple[float, float]]] = {contestant.name: [] for contestant in cast.not_floors}
    for number in range(rounds):
        for contestant in cast.not_floors:
            took = uvloop.run(pace(contestant, RATE, seconds, scene.CONNECTIONS))
            p50, p99 = quantile(took, 50), quantile(took, 99)
            found[contestant.name].append((p50, p99))
            say(f"round {number + 1}: {contestant.name:<20} p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    rows = []
    for name, pairs in found.items():
        words = f"p50 {spread([p[0] for p in pairs], 2)} ms, p99 {spread([p[1] for p in pairs], 2)} ms"
        rows.append(Row(name, words))
    for name in found:
        if name == BACKEND:
            continue
        for place, label, limit in ((0, "p50", 0.5), (1, "p99", 3.0)):
            added = [own[place] - none[place] for own, none in zip(found[name], found[BACKEND], strict=True)]
            target, fits = (
                ("", None) if name not in (DOOR, TUNNEL) else (f"≤ {limit:g} ms", statistics.median(added) <= limit)
            )
            rows.append(Row(f"{name}, added {label}", f"{spread(added, 2)} ms", target, fits))
    return Table("Latency", rows, NOTE)
