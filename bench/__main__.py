"""`make bench`: start the hub with a local cluster on free ports, twice, and print each budget with what was measured."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench.processes import Hub, cpu_seconds, resident_mb
from bench.state import StateFigures, measure_state

IDLE_S = 20.0
HELP_RUNS = 9


def measure_help_ms() -> float:
    """Median wall time of `herdsman --help` in ms, whole process."""
    import statistics
    import subprocess

    command = [str(Path(sys.executable).parent / "herdsman"), "--help"]
    times = []
    for _ in range(HELP_RUNS):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def main() -> int:
    directory = Path(tempfile.mkdtemp(prefix="herdsman-bench-"))
    rows: list[tuple[str, str, str]] = []
    try:
        hub = Hub(directory)
        first_s = hub.start()
        rows.append(("first start, hub ready", f"{first_s:.1f} s", ""))
        clustered = hub.wait_for_cluster(timeout_s=300)
        hub.stop()
        rows.append(("second start, hub ready", f"{hub.start():.1f} s", "≤ 5 s"))
        if clustered:
            hub.wait_for_cluster(timeout_s=120)
        time.sleep(5)
        pids = hub.pids()
        services = {name: pid for name, pid in pids.items() if not name.startswith(("agent", "kubelab"))}
        rows.append((f"hub processes together ({len(services)})", f"{sum(map(resident_mb, services.values())):.0f} MB", "≤ 600 MB"))
        for name, pid in pids.items():
            if name.startswith("agent"):
                rows.append(("agent, resident", f"{resident_mb(pid):.0f} MB", "≤ 60 MB"))
        before = {name: cpu_seconds(pid) for name, pid in services.items()}
        time.sleep(IDLE_S)
        used = {name: 100 * (cpu_seconds(pid) - before[name]) / IDLE_S for name, pid in services.items()}
        busiest = max(used, key=used.__getitem__)
        rows.append(("idle, all hub processes", f"{sum(used.values()):.1f} % of a core", ""))
        rows.append((f"idle, busiest ({busiest})", f"{used[busiest]:.1f} % of a core", "≤ 3 %"))
        figures: StateFigures = asyncio.run(measure_state(directory))
        rows.append(("KV write on disk, p50", f"{figures.write_p50_ms:.2f} ms", "≤ 5 ms"))
        rows.append(("KV write on disk, p99", f"{figures.write_p99_ms:.2f} ms", ""))
        rows.append(("watch to informer, p50", f"{figures.watch_p50_ms:.2f} ms", ""))
        rows.append(("watch to informer, p99", f"{figures.watch_p99_ms:.2f} ms", "≤ 20 ms"))
        hub.stop()
        rows.append(("herdsman --help, median", f"{measure_help_ms():.0f} ms", "≤ 200 ms"))
    finally:
        Hub.stop_in(directory)
        shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.write(f"{'what':<40}{'measured':>20}{'budget':>12}\n")
    sys.stdout.writelines(f"{what:<40}{measured:>20}{budget:>12}\n" for what, measured, budget in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
