"""Where the front door's time goes, under load: `python -m bench.proxy.profile [--of agent] [--how perf] [--seconds N]`.

`cprofile` shows Python functions, per request; it makes small functions look dearer than they are and doesn't see what uvloop and
OpenSSL do between two callbacks. `perf` shows that: shares of libraries and of C functions, the kernel included.
"""

from __future__ import annotations

import argparse
import os
import pstats
import shutil
import subprocess
import sys
from pathlib import Path

from bench.proxy import load
from bench.proxy.contestants import DOOR, TUNNEL, assemble
from bench.proxy.stage import LOAD_CORES, Part, Stage, StageError

_HERE = str(Path(__file__).resolve().parents[2]) + "/"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.proxy.profile", description="Where the front door's time goes"
    )
    parser.add_argument("--of", choices=("door", "agent"), default="door", help="whose time (default: %(default)s)")
    parser.add_argument(
        "--through", choices=("direct", "reverse"), help="the way; default: direct, reverse for the agent"
    )
    parser.add_argument("--how", choices=("cprofile", "perf"), default="cprofile")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--top", type=int, default=45, help="how many functions (default: %(default)s)")
    options = parser.parse_args()
    if load.MISSING or (options.how == "perf" and shutil.which("perf") is None):
        sys.stderr.write(f"{load.MISSING or 'apt-get install linux-perf'}\n")
        return 1
    reverse = options.of == "agent" or options.through == "reverse"
    os.sched_setaffinity(0, LOAD_CORES)
    try:
        with Stage() as stage:
            cast = assemble(stage, only=frozenset({TUNNEL} if reverse else ()))
            contestant = cast.contestants[TUNNEL if reverse else DOOR]
            part = contestant.parts[1 if options.of == "agent" else 0]
            plain = load.press_steadily(contestant, 2)
            each = zip(contestant.parts, plain.cpu_s, strict=True)
            print(", ".join(f"{p.name} {cpu_s / plain.requests * 1e6:.0f} µs of CPU per request" for p, cpu_s in each))
            look = by_cprofile if options.how == "cprofile" else by_perf
            with_profile = look(
                part, lambda: load.press(contestant, options.seconds), stage.folder / "profile", options.top
            )
            print(f"while it was profiled: {with_profile.cpu_us:.0f} µs, {with_profile.rate:.0f} requests/s")
    except StageError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


def by_cprofile(part: Part, press: load.Press, file: Path, top: int) -> load.Load:
    part.ask(do="profile")
    result = press()
    part.ask(do="profiled", file=str(file))
    stats = pstats.Stats(str(file)).stats  # type: ignore[attr-defined]
    print(f"{'calls':>7} {'self µs':>9} {'with callees':>13}   per request")
    ranked = sorted(stats.items(), key=lambda item: -item[1][2])
    for (path, line, name), (_, calls, own, cumulative, _) in ranked[:top]:
        place = name if path == "~" else f"{path.removeprefix(_HERE)}:{line} {name}"
        n = result.requests
        print(f"{calls / n:7.2f} {own / n * 1e6:9.2f} {cumulative / n * 1e6:13.2f}   {place}")
    print(
        f"{'':7} {sum(s[2] for s in stats.values()) / result.requests * 1e6:9.2f} {'':13}   all Python functions and what they call in C"
    )
    return result


def by_perf(part: Part, press: load.Press, file: Path, top: int) -> load.Load:
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-g", "-o", str(file), "-p", str(part.pid)]
    recorder = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    result = press()
    recorder.terminate()
    recorder.wait()
    for title, keys, count in (("libraries", "dso", 12), ("functions", "dso,symbol", top)):
        report = ["perf", "report", "-i", str(file), "--no-children", "--stdio", "-g", "none", "--sort", keys]
        text = subprocess.run(report, capture_output=True, text=True, check=True).stdout
        lines = [line.rstrip(" -") for line in text.splitlines() if line.strip() and not line.startswith("#")]
        print(f"share of CPU by {title}:\n" + "\n".join(lines[:count]))
    return result


if __name__ == "__main__":
    sys.exit(main())
