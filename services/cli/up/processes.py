"""Starting a child of the supervisor: in a session of its own, so that Ctrl-C reaches only us, and so that it never outlives us."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from libs.common.processes import dies_with_parent


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
        preexec_fn=dies_with_parent(death_signal),
    )
