"""Keeps the processes of one cluster running: start in order, restart what died, stop in reverse.

Used by `run`, inside the one process that owns the cluster. Each component has one task that owns its process. Children
are killed by the kernel when the supervisor dies, so a SIGKILL here leaves no control plane behind.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import structlog

from integration.kubelab.components import Component
from integration.kubelab.probe import Prober
from libs.common.errors import Timeout, Unavailable
from libs.common.processes import ProcessId, dies_with_parent, end_all

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_HEALTHY_AFTER_S = 30.0
_LOG_LIMIT_BYTES = 32 * 2**20

log = structlog.get_logger()

EnterNode = Callable[[Sequence[str]], tuple[str, ...]]
"""Turns a command into one that runs inside the node's namespaces."""


class Supervisor:
    """Owns the processes. `pids` holds what runs at this moment; `on_change` is told after every start and end."""

    def __init__(
        self,
        logs: Path,
        pki_folder: Path,
        on_change: Callable[[Mapping[str, ProcessId]], None],
        enter_node: EnterNode | None = None,
        node_groups: Sequence[Path] = (),
    ) -> None:
        self.pids: dict[str, ProcessId] = {}
        self._logs = logs
        self._pki_folder = pki_folder
        self._on_change = on_change
        self._enter_node = enter_node
        self._node_groups = tuple(node_groups)
        self._started: list[Component] = []
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._stopping: set[str] = set()

    async def start(self, component: Component, group: asyncio.TaskGroup) -> None:
        """Starts a component, its keeper in `group`, and returns when it is ready."""
        self._started.append(component)
        process = await self._spawn(component)
        self._keepers[component.name] = group.create_task(self._keep(component, process), name=f"keep-{component.name}")
        if component.probe is not None:
            await self._wait_ready(component)

    async def stop(self) -> None:
        """Ends everything in reverse order; returns when all of it is gone."""
        while self._started:
            await self._stop_one(self._started.pop())

    async def _stop_one(self, component: Component) -> None:
        self._stopping.add(component.name)
        identity = self.pids.get(component.name)
        if identity is not None and await end_all([identity], grace_s=component.stop_timeout_s):
            log.error("component_survived", component=component.name, pid=identity.pid)
        keeper = self._keepers.pop(component.name, None)
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])

    async def _wait_ready(self, component: Component) -> None:
        assert component.probe is not None
        prober = Prober(component.probe, self._pki_folder)
        started = time.monotonic()
        while not await prober.is_ready():
            if time.monotonic() - started > component.ready_timeout_s:
                raise Timeout(
                    f"{component.name} was not ready within {component.ready_timeout_s:.0f} s: "
                    f"{self._last_words(component)}; see {self._log_path(component)}"
                )
            await asyncio.sleep(0.05)
        log.info("component_ready", component=component.name, duration_ms=round((time.monotonic() - started) * 1000))

    async def _keep(self, component: Component, process: asyncio.subprocess.Process) -> None:
        """Restarts the component for as long as it is wanted, ever more slowly while it dies young."""
        pause_s = _FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            code = await process.wait()
            self.pids.pop(component.name, None)
            if component.name in self._stopping:
                return
            log.warning("component_died", component=component.name, code=code, words=self._last_words(component))
            self._on_change(self.pids)
            if time.monotonic() - started > _HEALTHY_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            if component.name in self._stopping:
                return
            process = await self._spawn(component)
            log.info("component_restarted", component=component.name, pid=process.pid)

    async def _spawn(self, component: Component) -> asyncio.subprocess.Process:
        command: Sequence[str] = component.argv
        groups: Sequence[Path] = ()
        if component.on_node:
            if self._enter_node is None:
                raise Unavailable(f"{component.name} belongs on a node, and this cluster has none")
            command, groups = self._enter_node(component.argv), self._node_groups
        with self._open_log(component) as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **component.environment},
                    preexec_fn=dies_with_parent(signal.SIGKILL, groups),
                    start_new_session=True,  # Ctrl-C belongs to the supervisor, which stops them in order
                )
            except OSError as error:
                raise Unavailable(f"cannot start {component.name} from {command[0]}: {error.strerror}") from error
        if (identity := ProcessId.current(process.pid)) is not None:
            self.pids[component.name] = identity
        self._on_change(self.pids)
        return process

    def _log_path(self, component: Component) -> Path:
        return self._logs / f"{component.name}.log"

    def _open_log(self, component: Component) -> BinaryIO:
        path = self._log_path(component)
        if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".log.old"))
        return path.open("ab")

    def _last_words(self, component: Component) -> str:
        """The end of its log, on one line: most start failures explain themselves there."""
        try:
            with self._log_path(component).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 2000))
                lines = file.read().decode(errors="replace").strip().splitlines()
        except FileNotFoundError:
            return "it wrote no log"
        return lines[-1][:500] if lines else "its log is empty"
