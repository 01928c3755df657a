"""A user with many open watches is disabled: how long until the last of them is closed, as the client sees it."""

from __future__ import annotations

import asyncio
import time

import uvloop

from bench.proxy.contestants import Cast
from bench.proxy.roles.door import DIRECT
from bench.proxy.streams import check_open, close_all, open_watches
from bench.proxy.table import Row, Sayer, Table, spread

COUNT = 1000
BYSTANDERS = 20
_LIMIT_S = 1.0
_PATIENCE_S = 10


def measure(cast: Cast, _seconds: int, rounds: int, say: Sayer) -> Table:
    took = []
    for number in range(rounds):
        took.append(uvloop.run(revoke(cast)))
        say(f"round {number + 1}: the last of {COUNT:,} watches closed after {took[-1] * 1000:.0f} ms")
    note = (
        f"From before the write that disables the user to the last of {COUNT:,} closes; {BYSTANDERS} watches of somebody else must stay open.\n"
        "The state store is in memory here: the way through NATS adds what `make bench` shows as watch to informer."
    )
    row = Row(
        f"{COUNT:,} watches closed",
        f"{spread([t * 1000 for t in took])} ms",
        "≤ 1000 ms, each time",
        max(took) <= _LIMIT_S,
    )
    return Table("Revocation", [row], note)


async def revoke(cast: Cast) -> float:
    """Seconds to the last close."""
    ways = [cast.door_for("eve", f"direct{number}") for number in range(DIRECT)]
    watches = await open_watches(ways, COUNT)
    others = await open_watches([cast.door_for("ada")], BYSTANDERS)
    said = await asyncio.to_thread(cast.door.ask, do="disable", name="eve")
    for _ in range(_PATIENCE_S * 100):
        if all(watch.closed_at for watch in watches):
            break
        await asyncio.sleep(0.01)
    ends = [watch.closed_at or time.monotonic() for watch in watches]
    check_open(others, "somebody else")
    await asyncio.to_thread(cast.door.ask, do="enable", name="eve")
    await close_all([*watches, *others])
    return max(ends) - float(said["began"])
