"""Keeps programs running: start in order, restart what died, stop in reverse. Used by `run` and `local`.

Each child has one task that owns it. What the supervisor does is told to `Watcher`, which writes herdsman.json and the
terminal's lines. It knows nothing of hubs: its tests run it on small programs.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Protocol

from libs.common import errors
from libs.common.processes import ProcessId, end_all
from services.cli.files import explain_os_error
from services.cli.up.logs import Logs
from services.cli.up.processes import spawn
from services.cli.up.programs import Program

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_HEALTHY_AFTER_S = 30.0
_DEATHS_BEFORE_READY = 3
_POLL_S = 0.03
_ROTATE_EVERY_S = 10.0


class Watcher(Protocol):
    """Is told what happens, from the event loop; must not block."""

    def started(self, program: Program, process: ProcessId) -> None: ...

    def waiting(self, program: Program, seconds: float, reason: str) -> None: ...

    def ready(self, program: Program, seconds: float) -> None: ...

    def died(self, program: Program, code: int, words: str, pause_s: float) -> None: ...

    def finished(self, program: Program, code: int) -> None: ...

    def stopping(self, program: Program) -> None: ...


@dataclass(slots=True)
class _Child:
    program: Program
    process: asyncio.subprocess.Process
    identity: ProcessId | None
    started_at: float
    log_offset: int
    deaths: int = 0
    stopping: bool = False
    renewed: asyncio.Event | None = None
    """While it is ended on purpose, to be started again, which is no death: set when that is done."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None


class Supervisor:
    """Owns the children. Everything it starts, it ends; `stop` may be called at any moment, also during a start."""

    def __init__(self, folder: Path, logs: Logs, watcher: Watcher) -> None:
        self._folder = folder
        self._logs = logs
        self._watcher = watcher
        self._children: dict[str, _Child] = {}
        self._hurry = asyncio.Event()

    @property
    def running(self) -> dict[str, ProcessId]:
        return {name: child.identity for name, child in self._children.items() if child.identity is not None}

    async def start(self, programs: Sequence[Program]) -> None:
        """Start them in this order, and return when all are ready. Raises Unavailable or Timeout with the reason.

        They come up beside each other; what must wait for another program starts in a later call.
        """
        for program in programs:
            await self._launch(program)
        for program in programs:
            await self._wait_ready(program)

    async def restart(self, name: str) -> None:
        """End a program that runs but does not work, start it again, return when it is ready. Raises as `start`.

        Does nothing to one that is stopped or just being restarted.
        """
        child = self._children.get(name)
        if child is None or child.stopping or child.identity is None:
            return
        child.renewed = renewed = asyncio.Event()
        child.deaths = 0
        await end_all([child.identity], child.program.stop_timeout_s)
        await renewed.wait()  # what the old one wrote must not pass for the new one's readiness
        await self._wait_ready(child.program)

    async def wait_over(self, name: str) -> None:
        """Returns when a program said by its exit code that its work is over, or was stopped."""
        await self._children[name].over.wait()

    async def keep_logs_small(self) -> None:
        """For a task of its own: rotates logs for ever."""
        while True:
            await asyncio.sleep(_ROTATE_EVERY_S)
            await asyncio.to_thread(self._logs.rotate)

    def hurry(self) -> None:
        """Let a running `stop` wait for nobody any more."""
        self._hurry.set()

    async def stop(self, names: Sequence[str] | None = None) -> list[str]:
        """End children, last stage first, each with its deadline, then SIGKILL. Returns what survived even that."""
        chosen = [c for n, c in self._children.items() if names is None or n in names]
        for child in chosen:
            child.stopping = True  # all at once: nothing restarts while the others stop
        survivors: list[str] = []
        for _, stage in groupby(sorted(chosen, key=lambda c: -c.program.stage), key=lambda c: c.program.stage):
            results = await asyncio.gather(*(self._stop_one(child) for child in stage))
            survivors += [name for name in results if name]
        return survivors

    async def _stop_one(self, child: _Child) -> str:
        self._watcher.stopping(child.program)
        left: list[ProcessId] = []
        if child.identity is not None:
            hurry = asyncio.create_task(self._hurry.wait(), name="hurry")
            ending = asyncio.create_task(
                end_all([child.identity], child.program.stop_timeout_s), name=f"end-{child.program.name}"
            )
            try:
                await asyncio.wait([hurry, ending], return_when=asyncio.FIRST_COMPLETED)
                left = ending.result() if ending.done() else await end_all([child.identity], 0.0)
            finally:
                hurry.cancel()
                ending.cancel()
                await asyncio.gather(hurry, ending, return_exceptions=True)
        if child.keeper is not None:
            if child.identity is not None and not left:
                # It is gone; its keeper returns as soon as the loop has reaped it.
                await asyncio.wait([child.keeper], timeout=2.0)
            child.keeper.cancel()
            await asyncio.wait([child.keeper])
        if child.renewed is not None:
            child.renewed.set()
        self._children.pop(child.program.name, None)
        child.over.set()
        return child.program.name if left else ""

    async def _launch(self, program: Program) -> None:
        assert program.name not in self._children, f"{program.name} runs already"
        child = await self._spawn(program)
        self._children[program.name] = child
        child.keeper = asyncio.create_task(self._keep(child), name=f"keep-{program.name}")

    async def _spawn(self, program: Program) -> _Child:
        offset = self._logs.size(program.name)
        try:
            await asyncio.to_thread(program.before_start)
            log = self._logs.open(program.name)
            try:
                output = (
                    log
                    if program.stdout_file is None
                    else os.open(program.stdout_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                )
                try:
                    process = await spawn(
                        program.argv, environment=program.environment, folder=self._folder,
                        stdout=output, stderr=log, death_signal=program.death_signal,
                    )  # fmt: skip
                finally:
                    if output != log:
                        os.close(output)
            finally:
                os.close(log)
        except OSError as error:
            raise explain_os_error(f"start {program.name} from", Path(program.argv[0]), error) from error
        identity = ProcessId.current(process.pid)
        if identity is not None:
            self._watcher.started(program, identity)
        return _Child(program, process, identity, time.monotonic(), offset)

    async def _wait_ready(self, program: Program) -> None:
        began = time.monotonic()
        while program.ready is not None and (reason := await program.ready()):
            elapsed = time.monotonic() - began
            child = self._children.get(program.name)
            if child is None or child.stopping:
                raise errors.Unavailable(f"{program.name} was stopped before it was ready")
            words = self._logs.last_words(program.name, child.log_offset) or "it wrote nothing"
            if child.over.is_set() or child.deaths >= _DEATHS_BEFORE_READY:
                raise errors.Unavailable(f"{program.name} cannot start: {words}; see {self._logs.path(program.name)}")
            if elapsed > program.ready_timeout_s:
                raise errors.Timeout(
                    f"{program.name} was not ready within {program.ready_timeout_s:.0f} s ({reason}): {words}; see {self._logs.path(program.name)}"
                )
            self._watcher.waiting(program, elapsed, reason)
            await asyncio.sleep(_POLL_S)
        self._watcher.ready(program, time.monotonic() - began)

    async def _keep(self, child: _Child) -> None:
        """Restart for as long as it is wanted: the first time at once, then ever more slowly while it dies young."""
        program, pause_s = child.program, 0.0
        while True:
            code = await child.process.wait()
            child.identity = None
            if child.stopping:
                return
            if child.renewed is not None:
                await self._respawn(child)
                child.renewed.set()
                child.renewed, pause_s = None, 0.0
                continue
            if program.is_final(code):
                self._watcher.finished(program, code)
                child.over.set()
                return
            child.deaths += 1
            if time.monotonic() - child.started_at > _HEALTHY_AFTER_S:
                pause_s = 0.0
            self._watcher.died(program, code, self._logs.last_words(program.name, child.log_offset), pause_s)
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(max(pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            await self._respawn(child)

    async def _respawn(self, child: _Child) -> None:
        while not child.stopping:
            try:
                fresh = await self._spawn(child.program)
            except errors.Unavailable as error:
                # For example a full disk: it may pass, and ending everything else would make it worse.
                self._watcher.died(child.program, -1, error.message, _LONGEST_PAUSE_S)
                await asyncio.sleep(_LONGEST_PAUSE_S * random.uniform(0.75, 1.25))
                continue
            child.process, child.identity = fresh.process, fresh.identity
            child.started_at, child.log_offset = fresh.started_at, fresh.log_offset
            return
