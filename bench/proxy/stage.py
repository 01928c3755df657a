"""The processes of one run: started on their core, asked by JSON lines, ended by pid whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import cpu_seconds
from libs.common.processes import dies_with_parent

CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE = {CORES[0]}
"""For the proxy under test alone."""
LOAD_CORES = set(CORES[1:]) or PROXY_CORE
"""For everything else. With one core the figures of CPU still say something, those of time don't."""


class StageError(Exception):
    """A part did not start, or ended by itself."""


@dataclass
class Part:
    """One process. `facts` is what it said when it was ready."""

    name: str
    process: subprocess.Popen[str]
    facts: dict[str, Any]

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise StageError(f"{self.name} ended with {self.process.wait()} instead of answering; what it said is above")

    @property
    def cpu_s(self) -> float:
        return cpu_seconds(self.pid)

    def memory_mb(self, field: str = "VmRSS") -> float:
        """`VmHWM` is the most since `forget_peak`."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")


class Stage:
    """A context manager: whatever was started in it ends with it."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="herdsman-bench-")))

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for part in reversed(self._parts):
            end(part.process)
        self._stack.close()

    def role(self, name: str, cores: set[int], files: tuple[int, ...] = (), **config: Any) -> Part:
        """Start `bench.proxy.roles.NAME` and wait until it is ready. It inherits `files`."""
        command = [sys.executable, "-m", f"bench.proxy.roles.{name}"]
        part = self.program(name, command, cores, files)
        part.facts = part.ask(**config)
        return part

    def program(
        self, name: str, command: Sequence[str], cores: set[int], files: tuple[int, ...] = (), **environment: str
    ) -> Part:
        """Start any program on these cores."""
        dying = dies_with_parent(signal.SIGKILL)

        def prepare() -> None:
            dying()
            os.sched_setaffinity(0, cores)
            os.setpgid(0, 0)  # a Ctrl-C is for the benchmark, which then ends its parts in order

        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=prepare,
            pass_fds=files, env={**os.environ, **environment},
        )  # fmt: skip
        part = Part(name, process, {})
        self._parts.append(part)
        return part

    def end(self, part: Part) -> None:
        """End one part before the others."""
        self._parts.remove(part)
        end(part.process)


def end(process: subprocess.Popen[str]) -> None:
    """Ask it to end, insist after three seconds."""
    process.terminate()
    try:
        process.wait(timeout=3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
