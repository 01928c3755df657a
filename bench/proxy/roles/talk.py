"""How a role speaks with the benchmark: JSON lines. The first that comes in is its settings (they hold tokens, which argv must not), then
commands; facts go out."""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop

from libs.common.observe import log
from libs.common.runtime import collector

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def run(role: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Run the role until the benchmark ends it."""
    config = json.loads(sys.stdin.readline())
    if "socket" in config:
        take_over(config["socket"])
    log.configure("bench", "error")
    uvloop.run(role(config))


def take_over(descriptor: int) -> None:
    """Hand this process's own code a listening socket by systemd's convention (sd_listen_fds(3)), before anything is open."""
    os.dup2(descriptor, 3)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def serve(handle: Handler | None = None, **facts: Any) -> None:
    """Say that it is ready, then answer commands until the benchmark goes away."""
    collector.settle()  # as the services do once they are built
    say(**facts)
    # Time of this thread alone: what else runs on the machine must not look like work of ours.
    profiler = cProfile.Profile(time.thread_time_ns, 1e-9)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        command = json.loads(line)
        if command["do"] == "profile":
            say()
            # From here on every callback of the loop is seen; what uvloop and OpenSSL do in between is not.
            profiler.enable()
        elif command["do"] == "profiled":
            profiler.disable()
            profiler.dump_stats(command["file"])
            say()
        else:
            assert handle is not None, "a command came for a role that takes none"
            say(**await handle(command))
