"""One reader that stops reading, and what a hundred others feel of it: nothing, it should be."""

from __future__ import annotations

import asyncio
import statistics

import uvloop

from bench.proxy import scene
from bench.proxy.contestants import DOOR, TUNNEL, Cast, Contestant
from bench.proxy.pace import pace
from bench.proxy.streams import Watch, check_open, open_stream
from bench.proxy.table import Row, Sayer, Table, quantile, spread

CALLERS = 100
RATE = 200.0
NOTE = (
    f"{CALLERS} connections call at {RATE:g} requests a second in all, in turns with and without another that asked for 64 MiB and reads no more.\n"
    "The ratio is of the same round; the p99 of a busy machine is its own, so the ratio of p50 stands beside it."
)


def measure(cast: Cast, seconds: int, rounds: int, say: Sayer) -> Table:
    rows = []
    for name in (DOOR, TUNNEL):
        contestant = cast.contestants[name]
        free, beside = [], []
        for number in range(rounds):
            free.append(uvloop.run(calls(contestant, seconds, stalled=False)))
            beside.append(uvloop.run(calls(contestant, seconds, stalled=True)))
            say(
                f"round {number + 1}: {name:<20} p99 {free[-1][1]:.2f} ms, beside a stalled reader {beside[-1][1]:.2f} ms"
            )
        for place, label in ((0, "p50"), (1, "p99")):
            ratios = [b[place] / a[place] for a, b in zip(free, beside, strict=True)]
            words = f"{spread([a[place] for a in free], 2)} ms → {spread([b[place] for b in beside], 2)} ms"
            rows.append(Row(f"{name}, {label}", words))
            rows.append(Row(f"{name}, {label}, ratio", spread(ratios, 2), "≤ 1.20", statistics.median(ratios) <= 1.2))
    return Table("One reader that stops reading", rows, NOTE)


async def calls(contestant: Contestant, seconds: int, *, stalled: bool) -> tuple[float, float]:
    """p50 and p99 in ms of the others."""
    reader = await stall(contestant) if stalled else None
    took = await pace(contestant, RATE, seconds, CALLERS)
    if reader is not None:
        check_open([reader], "the reader that stopped")
        reader.transport.abort()
        await asyncio.sleep(0.2)
    return quantile(took, 50), quantile(took, 99)


async def stall(contestant: Contestant) -> Watch:
    """Ask for a lot, take the first bytes, and stop; returns when all buffers on the way are full."""
    reader = await open_stream(contestant, scene.BULK_PATH)
    reader.transport.pause_reading()
    await asyncio.sleep(1.0)
    return reader
