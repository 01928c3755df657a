"""The Python interface to Kubelab clusters, for tests and for the development loop.

    cluster = await Cluster.up("edge-1", directory)
    ... cluster.kubeconfig, cluster.server, cluster.ca_file ...
    await cluster.kill("kube-apiserver")
    await cluster.down()

A cluster that `up` started is a child of the calling process and ends with it; `attached=False` (what the command does)
lets it live on. A cluster that runs already is joined, and `down` ends it all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from integration.kubelab.node import enter_by_pid
from integration.kubelab.paths import Layout, default_state_dir, read_json
from integration.kubelab.run import end_leftovers, import_image
from libs.common.errors import NotFound, Timeout, Unavailable
from libs.common.processes import ProcessId, dies_with_parent, end_all, wait_gone

_REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Cluster:
    """A running cluster, known by its folder. `host_address` is where pods of a full cluster reach this machine."""

    layout: Layout
    server: str
    ca_file: Path
    host_address: str
    full: bool
    _process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.layout.name

    @property
    def kubeconfig(self) -> Path:
        return self.layout.kubeconfig

    @classmethod
    async def up(
        cls,
        name: str,
        directory: Path | None = None,
        full: bool = False,
        *,
        minimal: bool = False,
        attached: bool = True,
        timeout_s: float = START_TIMEOUT_S,
    ) -> Cluster:
        """Starts the cluster, or joins it where it runs; returns when it works. Unavailable says why it does not."""
        layout = Layout.of(name, directory or default_state_dir())
        if state := running(layout):
            if full and not state["full"]:
                raise Unavailable(
                    f'cluster "{name}" runs without a node: stop it ("herdsman-kubelab down {name}") before --full'
                )
            return cls._of(layout, await _wait_ready(layout, timeout_s), None)
        layout.make()
        command = [sys.executable, "-m", "integration.kubelab", "run", name, "--dir", str(layout.root.parent)]
        command += ["--full"] * full + ["--minimal"] * minimal
        with _append(layout.logs / "supervisor.log") as errors:
            # Not asyncio's own: its transport kills the process when it is garbage-collected, and this one may live on.
            process = subprocess.Popen(  # noqa: ASYNC220  a fork takes a millisecond, and must happen in the thread that lives longest
                command, cwd=_REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True, preexec_fn=dies_with_parent(signal.SIGTERM) if attached else None,
            )  # fmt: skip
        try:
            state = await _first_line(process, layout, timeout_s)
        except BaseException:
            await _end_process(process)
            raise
        return cls._of(layout, state, process)

    @classmethod
    def find(cls, name: str, directory: Path | None = None) -> Cluster:
        """The cluster of this name that runs; NotFound if it does not."""
        layout = Layout.of(name, directory or default_state_dir())
        state = running(layout)
        if state is None:
            raise NotFound(
                f'cluster "{name}" does not run in {layout.root.parent}: start it with "herdsman-kubelab up {name}"'
            )
        return cls._of(layout, state, None)

    @classmethod
    def _of(cls, layout: Layout, state: dict[str, Any], process: subprocess.Popen[bytes] | None) -> Cluster:
        return cls(layout, state["server"], Path(state["ca_file"]), state["host_address"], state["full"], process)

    def pids(self) -> dict[str, int]:
        """What runs at this moment, by component."""
        return {name: identity.pid for name, identity in self._processes().items()}

    async def kill(self, component: str) -> int:
        """SIGKILL, as a crash would be; returns the pid that died. The supervisor starts the component again."""
        identity = self._component(component)
        if not identity.send(signal.SIGKILL):
            raise NotFound(f'{component} of cluster "{self.name}" has just ended by itself')
        await wait_gone([identity], 10.0)
        return identity.pid

    async def pause(self, component: str) -> None:
        """SIGSTOP: the process is there and does not answer, the harder kind of fault. `resume` ends it."""
        self._component(component).send(signal.SIGSTOP)

    async def resume(self, component: str) -> None:
        self._component(component).send(signal.SIGCONT)

    async def restart(self, component: str, timeout_s: float = 30.0) -> int:
        """Ends a component in order and waits for its successor's pid; readiness is the caller's to ask for."""
        before = self._component(component)
        before.send(signal.SIGTERM)
        return await self.wait_restarted(component, before.pid, timeout_s)

    async def wait_restarted(self, component: str, old_pid: int, timeout_s: float = 30.0) -> int:
        """The pid of the process that took the place of `old_pid`."""
        deadline = time.monotonic() + timeout_s
        while (pid := self.pids().get(component, old_pid)) == old_pid:
            if time.monotonic() > deadline:
                raise Timeout(f'{component} of cluster "{self.name}" was not started again within {timeout_s:.0f} s')
            await asyncio.sleep(0.05)
        return pid

    async def import_image(self, tarball: Path) -> str:
        """Puts an image tarball (`images.image_from_root`) into the node's containerd."""
        return await import_image(enter_by_pid(self._component("containerd")), tarball)

    async def down(self, *, delete: bool = False) -> None:
        await down(self.layout, delete=delete)
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)

    def _component(self, name: str) -> ProcessId:
        identity = self._processes().get(name)
        if identity is None:
            raise NotFound(f'cluster "{self.name}" runs no {name}; it runs {", ".join(self._processes()) or "nothing"}')
        return identity

    def _processes(self) -> dict[str, ProcessId]:
        recorded = read_json(self.layout.run_file).get("processes", {})
        found = {name: ProcessId.from_json(entry) for name, entry in recorded.items()}
        return {name: identity for name, identity in found.items() if identity is not None and identity.alive}


def running(layout: Layout) -> dict[str, Any] | None:
    """The run file of a cluster whose supervisor lives; None for any other."""
    state = read_json(layout.run_file)
    supervisor = ProcessId.from_json(state.get("supervisor"))
    return state if supervisor is not None and supervisor.alive else None


def list_clusters(directory: Path | None = None) -> Iterator[tuple[Layout, dict[str, Any] | None]]:
    """Every cluster folder with what runs in it."""
    root = directory or default_state_dir()
    for ports in sorted(root.glob("*/ports.json")):
        layout = Layout.of(ports.parent.name, root)
        yield layout, running(layout)


async def down(layout: Layout, *, delete: bool = False) -> None:
    """Ends the cluster, orderly if its supervisor lives, and what a killed run left; with `delete` its data too."""
    state = running(layout)
    if state is not None and (supervisor := ProcessId.from_json(state["supervisor"])):
        await end_all([supervisor], grace_s=STOP_TIMEOUT_S)
    if not layout.root.exists():
        return
    await end_leftovers(layout)
    if delete:
        await asyncio.to_thread(shutil.rmtree, layout.root)


async def _first_line(process: subprocess.Popen[bytes], layout: Layout, timeout_s: float) -> dict[str, Any]:
    """What the supervisor announces. On a time-out the caller ends it, and with it the thread that reads here."""
    assert process.stdout is not None
    reading = asyncio.create_task(asyncio.to_thread(process.stdout.readline), name=f"await-{layout.name}")
    done, _ = await asyncio.wait([reading], timeout=timeout_s)
    if not done:
        raise Timeout(f'cluster "{layout.name}" was not ready within {timeout_s:.0f} s; see {layout.logs}')
    line = reading.result()
    process.stdout.close()  # the announcement is all that ever comes
    if not line:
        raise Unavailable(f'cluster "{layout.name}" did not start: {_last_line(layout.logs / "supervisor.log")}')
    state: dict[str, Any] = json.loads(line)
    return state


async def _wait_ready(layout: Layout, timeout_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while (state := running(layout)) is not None:
        if state["ready"]:
            return state
        if time.monotonic() > deadline:
            raise Timeout(f'cluster "{layout.name}" was not ready within {timeout_s:.0f} s; see {layout.logs}')
        await asyncio.sleep(0.1)
    raise Unavailable(
        f'cluster "{layout.name}" ended while it was starting: {_last_line(layout.logs / "supervisor.log")}'
    )


async def _end_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def _append(path: Path) -> Iterator[IO[bytes]]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        yield file


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1] if lines else "it wrote no log"
