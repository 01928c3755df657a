"""Is there room? Asked before anything starts: a full disk freezes the system of record until it is restarted. Used by `run`."""

from __future__ import annotations

import shutil
from pathlib import Path

from libs.common import errors

NEEDED_BYTES = 512 * 2**20
ADVISED_BYTES = 4 * 2**30


def check_room(folder: Path, needed_bytes: int = NEEDED_BYTES, advised_bytes: int = ADVISED_BYTES) -> str:
    """A warning when there is little room, "" when there is plenty. Raises Unavailable when there is too little to start."""
    usage = shutil.disk_usage(folder)
    free_mib = usage.free >> 20
    if usage.free < needed_bytes:
        raise errors.Unavailable(
            f"only {free_mib} MiB are free on the disk of {folder}, and the hub needs {needed_bytes >> 20} MiB: free some space, or choose another --data-dir"
        )
    return f"only {free_mib} MiB are free on the disk of {folder}" if usage.free < advised_bytes else ""
