"""Processes that are provably ours: started so that they die with their parent, named by pid and start time.

A pid alone proves nothing, since the kernel gives it to somebody else later; with the start time of /proc/PID/stat it
names one process for ever. Used by `herdsman up` and by
the development cluster: both start children that must never outlive them, and end what a killed predecessor left.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process. `start_ticks` is field 22 of /proc/PID/stat: clock ticks from boot to its start."""

    pid: int
    start_ticks: int

    @classmethod
    def current(cls, pid: int) -> ProcessId | None:
        """The process that has this pid now; None if there is none, or only its unreaped remains."""
        stat = _stat(pid)
        return None if stat is None or stat[0] in "ZX" else cls(pid, stat[1])

    @classmethod
    def from_json(cls, document: Any) -> ProcessId | None:
        if not isinstance(document, dict) or not {"pid", "start_ticks"} <= document.keys():
            return None
        return cls(int(document["pid"]), int(document["start_ticks"]))

    def to_json(self) -> dict[str, int]:
        return {"pid": self.pid, "start_ticks": self.start_ticks}

    @property
    def alive(self) -> bool:
        return ProcessId.current(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal to this very process; False if it is gone. A pidfd rules out that the pid changes hands meanwhile."""
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


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        # The command name, in parentheses, may hold blanks and parentheses: fields count from the last closing one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[19])


def dies_with_parent(number: signal.Signals, enter: Sequence[Path] = ()) -> Callable[[], None]:
    """A `preexec_fn`: the child gets `number` when its parent ends, and joins the control groups whose folders are in `enter`."""
    prctl = ctypes.CDLL(
        None, use_errno=True
    ).prctl  # looked up here: between fork and exec there is no place for an import
    parent = os.getpid()
    members = [bytes(folder / "cgroup.procs") for folder in enter]

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(125)  # the parent ended before the request was made, so nobody would ever send the signal
        for member in members:
            descriptor = os.open(member, os.O_WRONLY)
            os.write(descriptor, b"0")
            os.close(descriptor)

    return prepare


async def wait_gone(identities: Sequence[ProcessId], timeout_s: float) -> list[ProcessId]:
    """Waits until none of them is alive; returns those that still are when the time is over."""
    deadline = time.monotonic() + timeout_s
    while left := [identity for identity in identities if identity.alive]:
        if time.monotonic() >= deadline:
            return left
        await asyncio.sleep(0.02)
    return []


async def end_all(identities: Sequence[ProcessId], grace_s: float) -> list[ProcessId]:
    """Asks them to end, insists after `grace_s`; returns those that even SIGKILL did not end within ten seconds."""
    for identity in identities:
        identity.send(signal.SIGTERM)
    left = await wait_gone(identities, grace_s)
    for identity in left:
        identity.send(signal.SIGKILL)
    return await wait_gone(left, 10.0)
