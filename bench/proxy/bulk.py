"""A list of 64 MiB: how much of a core it takes to pass it on, and what memory, to a quick reader and to a slow one."""

from __future__ import annotations

import http.client
import statistics
import time

from bench.proxy import scene
from bench.proxy.contestants import DOOR, TUNNEL, Cast, Contestant
from bench.proxy.pace import client_tls
from bench.proxy.stage import StageError
from bench.proxy.table import Row, Sayer, Table, spread

_MB = 1e6
_LISTS = 2
_SLOW_MB_PER_S = 50.0
NOTE = (
    "MB per second of the proxy's CPU, of each process by itself. Memory: by how much its resident set was larger, at its most, while a\n"
    f"list passed, to a reader that takes what it can get and to one that takes {_SLOW_MB_PER_S:g} MB a second."
)


def measure(cast: Cast, _seconds: int, rounds: int, say: Sayer) -> Table:
    rates: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    for contestant in cast.proxies:
        fetch(contestant)
    for number in range(rounds):
        for contestant in cast.proxies:
            before = [part.cpu_s for part in contestant.parts]
            grown = watch_memory(contestant, 0.0, _LISTS)
            used = [max(part.cpu_s - then, 1e-9) for part, then in zip(contestant.parts, before, strict=True)]
            slow = watch_memory(contestant, _SLOW_MB_PER_S, 1) if number == 0 else grown
            for place, part in enumerate(contestant.parts):
                name = label(contestant, place)
                rates.setdefault(name, []).append(_LISTS * scene.BULK_BYTES / _MB / used[place])
                memory[name] = max(memory.get(name, 0.0), grown[place], slow[place])
                say(
                    f"round {number + 1}: {name:<32} {rates[name][-1]:5.0f} MB per CPU-second ({part.memory_mb():.0f} MB resident)"
                )
    rows = []
    for name, values in rates.items():
        ours = name.startswith(DOOR)
        rows.append(
            Row(
                name,
                f"{spread(values)} MB per CPU-second",
                *(("≥ 300", statistics.median(values) >= 300) if ours else ()),
            )
        )
        rows.append(Row(f"{name}, memory", f"{memory[name]:+.1f} MB", *(("< 5 MB", memory[name] < 5) if ours else ())))
    return Table("A list of 64 MiB", rows, NOTE)


def label(contestant: Contestant, place: int) -> str:
    return contestant.name if contestant.name != TUNNEL else f"{TUNNEL}: the {contestant.parts[place].name}"


def watch_memory(contestant: Contestant, mb_per_s: float, lists: int) -> list[float]:
    """Fetch lists; by how many MB each part grew at its most."""
    before = []
    for part in contestant.parts:
        part.forget_peak()
        before.append(part.memory_mb("VmHWM"))
    for _ in range(lists):
        fetch(contestant, mb_per_s)
    return [part.memory_mb("VmHWM") - then for part, then in zip(contestant.parts, before, strict=True)]


def fetch(contestant: Contestant, mb_per_s: float = 0.0) -> None:
    """One list, every byte of it, at most so quickly. Raises StageError when it is not whole."""
    connection = http.client.HTTPSConnection("127.0.0.1", contestant.port, context=client_tls(), timeout=60)
    headers = dict((*scene.KUBECTL, *contestant.headers))
    connection.request("GET", contestant.prefix + scene.BULK_PATH, headers=headers)
    answer = connection.getresponse()
    piece = memoryview(bytearray(256 * 1024))
    size, began = 0, time.monotonic()
    while read := answer.readinto(piece):
        size += read
        if mb_per_s:
            time.sleep(max(0.0, began + size / _MB / mb_per_s - time.monotonic()))
    connection.close()
    if answer.status != 200 or size != scene.BULK_BYTES:
        raise StageError(
            f"{contestant.name} answered {answer.status} with {size} bytes instead of a list of {scene.BULK_BYTES}"
        )
