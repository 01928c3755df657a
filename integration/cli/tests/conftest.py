"""A supervisor as a child process, ended for certain when the test is over."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.common.processes import ProcessId

ROOT = Path(__file__).parents[3]


class Up:
    """One running `up`. Its output is in `output`; `ended` waits for its exit code."""

    def __init__(self, argv: list[str], data_dir: Path, output: Path) -> None:
        self.data_dir = data_dir
        self.output = output
        self._file = output.open("ab")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HERDSMAN_")}
        self.process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self._file, stderr=self._file, env=environment
        )

    def record(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "herdsman.json").read_text())

    def processes(self) -> dict[str, ProcessId]:
        document = self.record()
        return {name: ProcessId(pid, document["start_ticks"][name]) for name, pid in document["pids"].items()}

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, condition: Callable[[], object], what: str, timeout_s: float = 60.0) -> float:
        began = time.monotonic()
        while True:
            try:
                true = bool(condition())
            except (FileNotFoundError, KeyError):
                true = False  # not written yet
            if true:
                return time.monotonic() - began
            assert self.process.poll() is None or "exit" in what, f"it ended with {self.process.poll()}:\n{self.text()}"
            assert time.monotonic() - began < timeout_s, f"{what} did not happen:\n{self.text()}"
            time.sleep(0.02)

    def wait_ready(self, timeout_s: float = 60.0) -> float:
        return self.wait_for(lambda: "hub ready" in self.text(), "ready", timeout_s)

    def ended(self, timeout_s: float = 40.0) -> int:
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._file.close()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="up-") as folder:
        yield Path(folder) / "data"


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def small_up(data_dir: Path, port: int) -> Iterator[Callable[..., Up]]:
    """Starts the small hub; by default always in the same folder and on the same port."""
    started: list[Up] = []

    def start(folder: Path = data_dir, at: int = port) -> Up:
        output = data_dir.parent / f"output-{len(started)}"
        started.append(Up([sys.executable, "-m", "integration.cli.small_hub", str(folder), str(at)], folder, output))
        return started[-1]

    yield start
    for up in started:
        up.close()
