"""As much load as goes through, by wrk: a fixed number of connections, the next request as soon as the answer is there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.proxy import scene
from bench.proxy.contestants import Contestant
from bench.proxy.stage import StageError

MISSING = "" if shutil.which("wrk") else "apt-get install wrk"
_SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    requests: int
    seconds: float
    cpu_s: tuple[float, ...]
    """Of each part of the contestant, in order."""

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us(self) -> float:
        """All parts together, per request."""
        return sum(self.cpu_s) / self.requests * 1e6


Press = Callable[[], Load]


def press_steadily(contestant: Contestant, seconds: int, connections: int = scene.CONNECTIONS) -> Load:
    """What some seconds more cost: a run less a short one. So the handshakes, which both begin with, are not in the figure."""
    for longer in (1, 3):
        short = press(contestant, 1, connections, may_be_empty=True)
        whole = press(contestant, seconds * longer + 1, connections, may_be_empty=True)
        if whole.requests > short.requests:
            used = tuple(max(0.0, more - less) for more, less in zip(whole.cpu_s, short.cpu_s, strict=True))
            return Load(whole.requests - short.requests, whole.seconds - short.seconds, used)
    raise StageError(f"{contestant.name}: the machine is too busy to measure anything")


def warm_up(contestant: Contestant, connections: int = scene.CONNECTIONS) -> None:
    """Load that nobody measures: until there are connections, and code that ran once."""
    for seconds in (1, 2, 4, 8):
        # On a busy machine all handshakes together may take longer than the first tries.
        with contextlib.suppress(StageError):
            press(contestant, seconds, connections)
            return


def press(
    contestant: Contestant, seconds: int, connections: int = scene.CONNECTIONS, *, may_be_empty: bool = False
) -> Load:
    """Raises StageError when a single answer was not the right one."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(_SCRIPT), contestant.url(scene.LIST_PATH)]
    with tempfile.NamedTemporaryFile() as file:
        file.write(contestant.request(scene.LIST_PATH))
        file.flush()
        environment = {**os.environ, "BENCH_SIZE": str(scene.BODY_BYTES), "BENCH_REQUEST": file.name}
        before = [part.cpu_s for part in contestant.parts]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    used = tuple(part.cpu_s - then for part, then in zip(contestant.parts, before, strict=True))
    said = json.loads(run.stdout.strip().splitlines()[-1])
    if not said["seen"] and not may_be_empty:
        raise StageError(f"{contestant.name} gave no answer within {seconds} s on {connections} connections")
    if said["wrong"] or said["broken"] or said["seen"] < said["requests"]:
        raise StageError(f"{contestant.name} gave wrong answers: {said}")
    return Load(said["requests"], said["seconds"], used)
