"""CPU of each proxy per request, and how many go through: lists of 2.4 KB, pressed through by wrk."""

from __future__ import annotations

import statistics

from bench.proxy import load
from bench.proxy.contestants import AIOHTTP, DOOR, GO, TUNNEL, Cast
from bench.proxy.table import Row, Sayer, Table, spread

NOTE = (
    "CPU is utime + stime of the proxy's processes over the requests that were answered, without the\n"
    "handshakes: a long run less a short one. Every answer is checked for status 200 and the\n"
    "right size. The proxy under test has a core for itself; wrk, the API server's stand-in and, where there is one, the agent share the\n"
    "other cores, so the requests per second of the quickest say what these can take."
)


def measure(cast: Cast, seconds: int, rounds: int, say: Sayer) -> Table:
    missing = [Row(c.name, "not measured", c.missing) for c in cast.contestants.values() if c.missing]
    if load.MISSING:
        return Table("CPU per request", [Row("everything", "not measured", load.MISSING), *missing])
    for contestant in cast.taking_part:
        load.warm_up(contestant)
    loads: dict[str, list[load.Load]] = {contestant.name: [] for contestant in cast.taking_part}
    for number in range(rounds):
        for contestant in cast.taking_part:
            result = load.press_steadily(contestant, seconds)
            loads[contestant.name].append(result)
            say(f"round {number + 1}: {contestant.name:<20} {result.cpu_us:6.0f} µs, {result.rate:6.0f}/s")
    rows = [describe(name, results) for name, results in loads.items()]
    return Table("CPU per request", [*rows, *missing, *compare(loads)], NOTE)


def describe(name: str, results: list[load.Load]) -> Row:
    rate = f"{spread([r.rate for r in results])} requests/s"
    if not results[0].cpu_s:
        return Row(name, rate)
    split = ""
    if len(results[0].cpu_s) > 1:
        each = [statistics.median(r.cpu_s[n] / r.requests * 1e6 for r in results) for n in range(len(results[0].cpu_s))]
        split = f" = {' + '.join(f'{value:.0f}' for value in each)}"
    return Row(name, f"{spread([r.cpu_us for r in results])} µs{split}, {rate}")


def compare(loads: dict[str, list[load.Load]]) -> list[Row]:
    """Ratios of the same round, which what else runs on the machine disturbs least."""

    def ratios(over: str, under: str) -> list[float]:
        return [a.cpu_us / b.cpu_us for a, b in zip(loads[over], loads[under], strict=True)]

    rows = []
    if GO in loads:
        found = ratios(DOOR, GO)
        rows.append(Row("front door : Go", spread(found, 2), "≤ 0.80", statistics.median(found) <= 0.8))
    if AIOHTTP in loads:
        found = ratios(AIOHTTP, DOOR)
        rows.append(Row("aiohttp : front door", spread(found, 2), "≥ 3.00", statistics.median(found) >= 3))
    if TUNNEL in loads:
        found = ratios(TUNNEL, DOOR)
        rows.append(Row("door with agent : door", spread(found, 2), "≤ 2.00", statistics.median(found) <= 2))
    return rows
