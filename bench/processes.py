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
        self._log = directory / "bench-up.log"
        self._log_begins = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, timeout_s: float = 120) -> float:
        """Start, wait for /readyz, return the seconds that took."""
        began = time.monotonic()
        self._log_begins = len(self._log.read_text(encoding="utf-8", errors="replace")) if self._log.exists() else 0
        # As where people install it: what was compiled once is kept.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "herdsman"), "up", "--data-dir", str(self.directory / "data"),
                 "--port", str(self._port), *self._options],
                stdout=output, stderr=output, env=environment,
            )  # fmt: skip
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() - began > timeout_s:
                said = self._log.read_text(encoding="utf-8", errors="replace").strip()
                raise RuntimeError(f"the hub did not become ready in {timeout_s:g} s; it said:\n{said}")
            time.sleep(0.02)
        return time.monotonic() - began

    def record(self) -> dict[str, object]:
        """What `herdsman.json` says."""
        return dict(json.loads((self.directory / "data" / "herdsman.json").read_text(encoding="utf-8")))

    def pids(self) -> dict[str, int]:
        """Of everything that runs now, the supervisor ("up") first."""
        record = self.record()
        pids = record["pids"]
        assert isinstance(pids, dict)
        return {"up": int(str(record["pid"])), **{str(name): int(pid) for name, pid in pids.items()}}

    def wait_for_cluster(self, timeout_s: float) -> bool:
        """Whether the local cluster is active within `timeout_s`; False at once when `up` says that there will be none."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            said = self._log.read_text(encoding="utf-8", errors="replace")[self._log_begins :]
            if "is active" in said:
                return True
            if "the hub runs without it" in said or "no local cluster:" in said:
                return False
            time.sleep(0.2)
        return False

    def stop(self) -> None:
        """SIGINT, as Ctrl-C does, and wait."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()  # the kernel then ends its children
            process.wait()
            raise

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
