"""Processes that are provably ours: they die with their parent and are named by pid and start time.

A pid alone proves nothing, since the kernel hands it on; with the start time of /proc/PID/stat it names one process for
ever. Used by `supervisor` to start and end children, and by `record` to end what a killed `up` may have left.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of this boot. `start_ticks` is field 22 of /proc/PID/stat (proc_pid_stat(5))."""

    pid: int
    start_ticks: int

    @classmethod
    def current(cls, pid: int) -> ProcessId | None:
        """The process that has this pid now; None if there is none, or only a zombie."""
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The command's name stands in parentheses and may hold any character: fields count from the last one.
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return ProcessId.current(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signal this very process; False when it is gone. The pidfd rules out that the pid changes hands in between."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


async def end_all(processes: Sequence[ProcessId], grace_s: float) -> list[ProcessId]:
    """SIGTERM, then SIGKILL to whatever is left after `grace_s`; returns what even that did not end within five seconds."""
    for process in processes:
        process.send(signal.SIGTERM)
    left = await _wait_gone(processes, grace_s)
    for process in left:
        process.send(signal.SIGKILL)
    return await _wait_gone(left, 5.0)


async def _wait_gone(processes: Sequence[ProcessId], timeout_s: float) -> list[ProcessId]:
    deadline = time.monotonic() + timeout_s
    while left := [process for process in processes if process.alive]:
        if time.monotonic() >= deadline:
            return left
        await asyncio.sleep(_POLL_S)
    return []


async def spawn(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: Path,
    stdout: int,
    stderr: int,
    death_signal: signal.Signals,
) -> asyncio.subprocess.Process:
    """Start a child in a session of its own, so that Ctrl-C reaches only us, and with a death wish. Raises OSError."""
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        env=dict(environment),
        cwd=folder,
        start_new_session=True,
        preexec_fn=_die_with_parent(death_signal),
    )


def _die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """For between fork and exec: the kernel signals the child when we end, however we end (PR_SET_PDEATHSIG(2const))."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: an import after it could deadlock
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(125)  # we ended before the request was made, so nobody would ever signal

    return prepare
