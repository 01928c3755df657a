"""The control groups of a full cluster: who is in them is ours, provably, and can be ended to the last process.

containerd's shims outlive containerd by design, and pods outlive their shims' parents; membership in a control group is
the one mark that no process can shed. Works with version 1 hierarchies, version 2, and both mounted together.
Used by `node` only.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from libs.common.errors import Unavailable
from libs.common.processes import ProcessId


def hierarchies(mountinfo: str | None = None) -> dict[str, Path]:
    """Mount point of each hierarchy: its controllers (or systemd's name) for version 1, `unified` for version 2."""
    found: dict[str, Path] = {}
    for line in (mountinfo or Path("/proc/self/mountinfo").read_text()).splitlines():
        mount, _, tail = line.partition(" - ")
        kind = tail.split(" ", 1)[0]
        point = Path(mount.split(" ")[4])
        if kind == "cgroup2":
            found["unified"] = point
        elif kind == "cgroup":
            found[point.name] = point
    return found


@dataclass(frozen=True, slots=True)
class ClusterGroups:
    """All groups named `/kubelab-<instance id>`, one in each hierarchy."""

    instance_id: str

    @property
    def name(self) -> str:
        return f"kubelab-{self.instance_id}"

    @property
    def system(self) -> Path:
        """Where containerd, kubelet and, by descent, the shims live: one hierarchy is enough to find them."""
        points = hierarchies()
        for preferred in ("pids", "systemd", "unified"):
            if preferred in points:
                return points[preferred] / self.name / "system"
        raise Unavailable("no control-group hierarchy is mounted at /sys/fs/cgroup: pods need one")

    def create(self) -> None:
        for point in hierarchies().values():
            (point / self.name).mkdir(exist_ok=True)
        self.system.mkdir(exist_ok=True)

    def members(self) -> set[int]:
        return {pid for group in self._all() for pid in _members(group)}

    async def kill(self, timeout_s: float = 20.0) -> None:
        """Ends every process in the groups. Repeats, since a process may fork while the list is read."""
        deadline = time.monotonic() + timeout_s
        while pids := self.members():
            for pid in pids:
                self._kill_member(pid)
            if time.monotonic() > deadline:
                raise Unavailable(f"processes {sorted(pids)} of control group {self.name} survive SIGKILL; see dmesg")
            await asyncio.sleep(0.05)

    async def remove(self, timeout_s: float = 10.0) -> None:
        """Removes the groups; the kernel may need a moment after the last process ended."""
        deadline = time.monotonic() + timeout_s
        while groups := list(self._all()):
            for group in groups:
                try:
                    group.rmdir()
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise Unavailable(f"cannot remove control group {group}: {error.strerror}") from error
            await asyncio.sleep(0.05)

    def _all(self) -> Iterator[Path]:
        """Every group of ours, children before parents."""
        for point in hierarchies().values():
            for folder, _, _ in os.walk(point / self.name, topdown=False):
                yield Path(folder)

    def _kill_member(self, pid: int) -> None:
        identity = ProcessId.current(pid)
        if identity is None:
            return
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        # Read again after taking the identity: the pid on the list may have changed hands.
        if any(line.split(":", 2)[2].startswith(f"/{self.name}/") for line in groups.splitlines()):
            identity.send(signal.SIGKILL)


def _members(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:
        return []  # removed between the listing and the reading
