"""What an idle watch costs: memory of the proxy, and of the kernel."""

from __future__ import annotations

import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.proxy.contestants import DOOR, TUNNEL, Cast, Contestant
from bench.proxy.roles.door import DIRECT
from bench.proxy.streams import check_open, close_all, open_watches
from bench.proxy.table import Row, Sayer, Table

WANTED = 10_000
OTHERS = 500
_PATIENCE_S = 100.0
_ENOUGH = 2000
"""Fewer say little: what a process holds in reserve hides them."""
_SPARE = 300
NOTE = (
    "Each watch is a TLS connection from the client and one to the API server. Memory is the growth of the proxy's resident set, divided by\n"
    "their number; the kernel's is the growth of its slabs and socket buffers, which here holds both ends of both connections."
)


def measure(cast: Cast, _seconds: int, _rounds: int, say: Sayer) -> Table:
    rows = []
    for contestant in cast.proxies:
        if contestant.name not in (DOOR, TUNNEL):
            held = hold(contestant, [contestant], OTHERS, _PATIENCE_S / 5)
            say(f"{contestant.name}: {held.count} watches, {held.kib:.1f} KiB each")
            rows.append(Row(f"{contestant.name}, {held.count:,} watches", f"{held.kib:.1f} KiB each"))
    # A file for each connection, on both sides.
    allowed = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE) // 2
    door = cast.contestants[DOOR]
    clusters = [cast.door_for("ada", f"direct{number}") for number in range(DIRECT)]
    say(f"{door.name}: opening {min(WANTED, allowed):,} watches")
    held = hold(door, clusters, min(WANTED, allowed), _PATIENCE_S)
    say(f"{door.name}: {held.count:,} watches, {held.kib:.1f} KiB each")
    less = (
        ""
        if held.count == WANTED
        else f"; {WANTED:,} wanted, " + ("ulimit -n allows no more" if held.count == allowed else "no time for more")
    )
    ours = [
        Row(f"{door.name}, {held.count:,} watches{less}", f"{held.kib:.1f} KiB each", "≤ 40 KiB", held.kib <= 40),
        Row("the kernel's side of these", f"{held.kernel_kib:.1f} KiB each, four sockets"),
        Row(
            "opened",
            f"{held.count / held.seconds:.0f} a second, {held.cpu_ms:.2f} ms of the proxy's CPU each: two TLS handshakes",
        ),
    ]
    return Table("Idle watches", ours + rows, NOTE)


@dataclass(frozen=True)
class Held:
    """Memory is for each of `count` watches; `seconds` is what opening all of them took."""

    count: int
    kib: float
    kernel_kib: float
    seconds: float
    cpu_ms: float


def hold(contestant: Contestant, ways: list[Contestant], count: int, within_s: float) -> Held:
    """Open so many, or what is open in time; look, and close them."""

    async def run() -> Held:
        part = contestant.parts[0]
        before, kernel, cpu_s, began = part.memory_mb(), kernel_kib(), part.cpu_s, time.monotonic()
        watches = await open_watches(ways, count, within_s)
        took, used, n = time.monotonic() - began, part.cpu_s - cpu_s, len(watches)
        held = Held(n, (part.memory_mb() - before) * 1024 / n, (kernel_kib() - kernel) / n, took, used / n * 1000)
        check_open(watches, contestant.name)
        await close_all(watches)
        return held

    return uvloop.run(run())


def kernel_kib() -> float:
    """Slabs, and the pages that sockets hold."""
    memory = Path("/proc/meminfo").read_text(encoding="ascii")
    slab = re.search(r"^Slab:\s+(\d+) kB", memory, re.MULTILINE)
    pages = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(encoding="ascii"), re.MULTILINE)
    assert slab is not None
    return int(slab[1]) + (int(pages[1]) * resource.getpagesize() / 1024 if pages else 0)
