"""The hub as a process to measure: start, wait, stop, and what its processes use, read from /proc."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident_mb(pid: int) -> float:
    """VmRSS in MB; 0 when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def cpu_seconds(pid: int) -> float:
    """User and system time so far; 0 when the process is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Hub:
    """`herdsman up` in `directory`."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self._port = free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 120) -> float:
        """Start, wait for /readyz, return the seconds that took."""
        began = time.monotonic()
        with (self.directory / "bench-up.log").open("ab") as output:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "herdsman"), "up", "--data-dir", str(self.directory / "data"),
                 "--port", str(self._port), *self._options],
                stdout=output, stderr=output,
            )  # fmt: skip
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() - began > timeout_s:
                raise RuntimeError(f"the hub did not become ready; see {self.directory / 'bench-up.log'}")
            time.sleep(0.02)
        return time.monotonic() - began

    def record(self) -> dict[str, object]:
        """What `herdsman.json` says."""
        return dict(json.loads((self.directory / "data" / "herdsman.json").read_text(encoding="utf-8")))

    def pids(self) -> dict[str, int]:
        pids = self.record()["pids"]
        assert isinstance(pids, dict)
        return {str(name): int(pid) for name, pid in pids.items()}

    def wait_for_cluster(self, timeout_s: float) -> bool:
        """Whether the local cluster's agent runs within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if any(name.startswith("agent") for name in self.pids()):
                time.sleep(10)
                return True
            time.sleep(0.5)
        return False

    def stop(self) -> None:
        """SIGINT, as Ctrl-C does, and wait."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=60)
        self._process = None

    @staticmethod
    def stop_in(directory: Path) -> None:
        """End a hub that an exception left running in `directory`."""
        record = directory / "data" / "herdsman.json"
        if not record.exists():
            return
        pid = json.loads(record.read_text(encoding="utf-8")).get("pids", {}).get("up")
        if pid and Path(f"/proc/{pid}").exists():
            os.kill(int(pid), signal.SIGINT)
            time.sleep(5)

    def _ready(self) -> bool:
        import http.client
        import ssl

        try:
            record = self.record()
            context = ssl.create_default_context(cafile=str(record["ca_file"]))
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=context, timeout=2)
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, ValueError, http.client.HTTPException):
            return False
