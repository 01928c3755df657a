"""Several workers on one address: whether two do nearly twice the work of one.

Each is a front door of its own with the same state, on a listening socket that shares the port with the others' (SO_REUSEPORT), given to it
as the parent of the workers gives it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import statistics
from collections.abc import Iterator

from bench.proxy import load
from bench.proxy.contestants import DOOR, Cast, Contestant
from bench.proxy.stage import CORES, Part, Stage
from bench.proxy.table import Row, Sayer, Table, spread

COUNT = 2
CONNECTIONS = 96
"""Enough that the kernel's share-out over the sockets is about even."""
NOTE = (
    "The load generator needs a core or two for itself, so with few cores the wall clock can't show the scaling. It is computed: requests per\n"
    "CPU-second of two over those of one, times two, times how evenly the kernel shared the connections out (all workers' CPU over that of\n"
    f"the busiest). {CONNECTIONS} connections."
)


def measure(cast: Cast, seconds: int, rounds: int, say: Sayer) -> Table:
    if importlib.util.find_spec("services.auth_proxy.inherited") is None:
        return Table("Workers", [Row("not measured", "this front door runs as one process")])
    if load.MISSING:
        return Table("Workers", [Row("not measured", load.MISSING)])
    found: dict[int, list[load.Load]] = {1: [], COUNT: []}
    scaling = []
    with Stage() as stage:
        ways = {count: start(stage, cast, count) for count in found}
        for way in ways.values():
            load.warm_up(way, CONNECTIONS)
        for number in range(rounds):
            for count, way in ways.items():
                found[count].append(load.press_steadily(way, seconds, CONNECTIONS))
            one, several = found[1][-1], found[COUNT][-1]
            scaling.append(COUNT * one.cpu_us / several.cpu_us * sum(several.cpu_s) / max(*several.cpu_s, 1e-9) / COUNT)
            say(
                f"round {number + 1}: {one.cpu_us:.0f} µs with one, {several.cpu_us:.0f} µs with {COUNT}; {scaling[-1]:.2f} times"
            )
    rows = [
        Row(
            f"{count} at work",
            f"{spread([1e6 / r.cpu_us for r in results])} requests per CPU-second, {spread([r.rate for r in results])} requests/s",
        )
        for count, results in found.items()
    ]
    share = [100 * max(r.cpu_s) / sum(r.cpu_s) for r in found[COUNT]]
    rows.append(Row("share of the busiest", f"{spread(share)} %"))
    rows.append(Row(f"{COUNT} workers : one", f"{spread(scaling, 2)}", "≥ 1.80", statistics.median(scaling) >= 1.8))
    return Table("Workers", rows, NOTE)


def start(stage: Stage, cast: Cast, count: int) -> Contestant:
    """So many workers, each on a core of its own while there are enough."""
    parts: list[Part] = []
    with shared_port(count) as sockets:
        port = sockets[0].getsockname()[1]
        for number, sock in enumerate(sockets):
            folder = stage.folder / f"{count}-{number}"
            folder.mkdir()
            (folder / "listen").write_text(f"127.0.0.1:{port}\n", encoding="ascii")
            config = {
                "folder": str(folder), "people": cast.tokens, "backend": cast.backend.facts["port"],
                "backend_folder": str(cast.folder / "api"), "socket": sock.fileno(),
            }  # fmt: skip
            parts.append(stage.role("door", {CORES[number % len(CORES)]}, (sock.fileno(),), **config))
    way = cast.door_for("ada")
    return Contestant(f"{DOOR}, {count} at work", port, way.prefix, way.headers, parts)


@contextlib.contextmanager
def shared_port(count: int) -> Iterator[list[socket.socket]]:
    """Listening sockets on one free port of the loopback address."""
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", sockets[0].getsockname()[1] if sockets else 0))
            sock.listen(1024)
            sockets.append(sock)
        yield sockets
