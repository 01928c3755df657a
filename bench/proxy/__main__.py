"""`make bench-proxy`: start everybody, measure, print the table, write bench/RESULTS.md."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.proxy import bulk, isolation, latency, revocation, speed, watches, workers
from bench.proxy.contestants import Cast, assemble
from bench.proxy.stage import LOAD_CORES, Stage, StageError
from bench.proxy.table import Row, Table, machine, write_results

RESULTS = Path(__file__).resolve().parents[1] / "RESULTS.md"
Section = Callable[[Cast, int, int, Callable[[str], None]], Table]
SECTIONS: dict[str, Section] = {
    "speed": speed.measure,
    "latency": latency.measure,
    # Before those that leave memory behind which the next connections would be given.
    "watches": watches.measure,
    "bulk": bulk.measure,
    "isolation": isolation.measure,
    "revocation": revocation.measure,
    "workers": workers.measure,
}


def main() -> int:
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: the parts end with us, in order
    facts = machine()
    print("\n".join(f"{name}: {value}" for name, value in facts))
    os.sched_setaffinity(0, LOAD_CORES)
    began = time.monotonic()
    tables: list[Table] = []
    try:
        with Stage() as stage:
            progress(began, "start", "API server, front door, agent, Go, aiohttp, nginx")
            cast = assemble(stage)
            for name in options.only:
                try:
                    table = SECTIONS[name](cast, options.seconds, options.rounds, partial(progress, began, name))
                except StageError as exc:
                    # The others say something all the same.
                    table = Table(name, [Row("not measured", str(exc), "", fits=False)])
                tables.append(table)
    except StageError as exc:
        sys.stderr.write(f"bench.proxy: {exc}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    for table in tables:
        print("\n" + "\n".join(table.lines()))
    if options.results:
        write_results(options.results, shlex.join(["python", "-m", "bench.proxy", *sys.argv[1:]]), facts, tables)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.proxy", description="The front door beside other proxies")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of: {', '.join(SECTIONS)}")
    parser.add_argument("--seconds", type=int, default=3, help="of load, each time (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="in which the contestants take turns (default: %(default)s)"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=None,
        help="where to write the results; default with all sections: bench/RESULTS.md",
    )
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = [name for name in options.only if name not in SECTIONS]
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}")
    if options.results is None and list(options.only) == list(SECTIONS):
        options.results = RESULTS
    return options


def progress(began: float, section: str, words: str) -> None:
    print(f"{time.monotonic() - began:5.0f} s  {section}: {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
