"""herdsman.json: what runs now, kept current; the lock that makes one `up` for each folder; the end of leftovers.

Read by tests, by `backup`, `doctor` and by people. The pids count only while the lock is held.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libs.common import errors
from libs.common.processes import ProcessId, end_all
from services.cli.files import explain_os_error, read_json, write_private
from services.cli.up.layout import Layout


@dataclass(slots=True)
class Record:
    """The content of herdsman.json. `write` after every change."""

    layout: Layout
    facts: dict[str, Any] = field(default_factory=dict)
    processes: dict[str, ProcessId] = field(default_factory=dict)

    def write(self) -> None:
        document = {
            **self.facts,
            "pids": {name: process.pid for name, process in self.processes.items()},
            "start_ticks": {name: process.start_ticks for name, process in self.processes.items()},
        }
        write_private(self.layout.record, json.dumps(document, indent=2) + "\n")


class RunLock:
    """Held by the one `up` of a data folder; the kernel lets go of it when that process ends, however it ends."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises Conflict, with the pid of the one that runs."""
        try:
            descriptor = os.open(self._layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise explain_os_error("lock", self._layout.lock, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            pid = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise explain_os_error("lock", self._layout.lock, error) from error
            url = read_json(self._layout.record).get("url", "")
            raise errors.Conflict(
                f"a hub runs already in {self._layout.root} (pid {pid}{', ' + url if url else ''}): "
                f'stop it with "kill {pid}", or give this one another --data-dir and --port'
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_running(layout: Layout) -> bool:
    """Whether an `up` holds the lock of this folder now."""
    try:
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def leftovers(record_file: Path) -> dict[str, ProcessId]:
    """Processes of an earlier `up` that still live, proven by their start times."""
    document = read_json(record_file)
    pids, ticks = document.get("pids"), document.get("start_ticks")
    if not isinstance(pids, dict) or not isinstance(ticks, dict):
        return {}
    known = {name: ProcessId(int(pid), int(ticks[name])) for name, pid in pids.items() if name in ticks}
    return {name: process for name, process in known.items() if process.alive}


async def end_leftovers(layout: Layout) -> list[str]:
    """End them; returns their names. Call with the lock held. Raises Conflict when one can't be ended."""
    found = leftovers(layout.record)
    survivors = await end_all(list(found.values()), grace_s=5.0)
    if survivors:
        raise errors.Conflict(
            f"processes of an earlier start cannot be ended (pids {', '.join(str(p.pid) for p in survivors)}): end them and start again"
        )
    return list(found)
