"""One cluster in the foreground: prepares its folder, starts everything, says when it is ready, stops at a signal.

Called by the command `run`, also on behalf of `up` and of `Cluster`. The process that is here owns the cluster: it holds
the lock of the folder, and `run.json` tells others what runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from integration.kubelab import binaries, images, pki
from integration.kubelab.addresses import SERVICE_IP, Subnet, ensure_ports, ensure_subnet
from integration.kubelab.components import PORT_NAMES, Component, Settings, render_components
from integration.kubelab.kubeconfig import render_kubeconfig
from integration.kubelab.node import Node, containerd_client, remove_leftovers
from integration.kubelab.node_config import PAUSE_IMAGE, render_node_components
from integration.kubelab.paths import Layout, read_json, write_private
from integration.kubelab.ready import wait_working
from integration.kubelab.supervisor import Supervisor
from libs.common.errors import Conflict, HerdsmanError
from libs.common.processes import ProcessId, end_all

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller asked for."""

    layout: Layout
    full: bool = False
    minimal: bool = False


async def run(wanted: Wanted, announce: Callable[[str], None]) -> None:
    """Runs the cluster until SIGTERM or SIGINT; `announce` gets one JSON line when it is ready."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    wanted.layout.make()
    with _owned(wanted.layout):
        await end_leftovers(wanted.layout)
        started = time.monotonic()
        async with AsyncExitStack() as stack:
            settings = await asyncio.to_thread(prepare, wanted)
            node = None
            if settings.full:
                node = await Node.create(settings)
                stack.push_async_callback(node.close)
            stack.callback(wanted.layout.run_file.unlink, missing_ok=True)
            await _serve(settings, node, stop, announce, started)
    log.info("cluster_stopped", name=wanted.layout.name)


def prepare(wanted: Wanted) -> Settings:
    """Everything on disk that the processes need. Idempotent; a second start finds nearly all of it."""
    layout = wanted.layout
    required: Sequence[str] = binaries.PLAIN
    if wanted.full or wanted.minimal:
        required = binaries.FULL if wanted.full else binaries.MINIMAL
    subnet: Subnet | None = ensure_subnet(layout.subnet_file, layout.instance_id) if wanted.full else None
    settings = Settings(
        layout,
        binaries.find(required),
        ensure_ports(layout.ports_file, PORT_NAMES),
        subnet=subnet,
        minimal=wanted.minimal,
    )
    certificates = pki.leaves(
        layout.name, ["127.0.0.1", settings.server_ip], SERVICE_IP, subnet.node_ip if subnet else None
    )
    pki.ensure_pki(layout.pki, certificates, datetime.now(UTC))
    identities = {
        "kube-controller-manager": "kube-controller-manager",
        "kube-scheduler": "kube-scheduler",
        "kube-proxy": "kube-proxy",
    }
    if subnet:
        identities["kubelet"] = "kubelet-client"
    for component, identity in identities.items():
        content = render_kubeconfig(layout.name, settings.server, layout.pki, identity)
        write_private(Path(settings.kubeconfig_of(component)), content)
    write_private(layout.kubeconfig, render_kubeconfig(layout.name, settings.server, layout.pki, "admin"))
    return settings


async def end_leftovers(layout: Layout) -> None:
    """Ends what a killed run left behind: processes that its run file names and that still are the same, and its node."""
    recorded = read_json(layout.run_file).get("processes", {})
    identities = [identity for entry in recorded.values() if (identity := ProcessId.from_json(entry))]
    if left := await end_all([identity for identity in identities if identity.alive], grace_s=5.0):
        raise Conflict(
            f'processes {[i.pid for i in left]} of an earlier run of cluster "{layout.name}" survive SIGKILL; see dmesg'
        )
    await remove_leftovers(layout)
    layout.run_file.unlink(missing_ok=True)


async def _serve(
    settings: Settings, node: Node | None, stop: asyncio.Event, announce: Callable[[str], None], started: float
) -> None:
    layout = settings.layout
    state = _RunFile(settings)
    supervisor = Supervisor(
        layout.logs, layout.pki, state.set_processes, node.enter if node else None, [node.groups.system] if node else []
    )
    try:
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(stop.wait(), name="wait-for-stop")
            starting = group.create_task(_start(settings, node, supervisor, group), name="start-cluster")
            await asyncio.wait([stopping, starting], return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                await starting
                state.set_ready()
                log.info("cluster_ready", name=layout.name, duration_ms=round((time.monotonic() - started) * 1000))
                announce(json.dumps(state.summary()))
            await stopping
            starting.cancel()
            await asyncio.wait([starting])
            await supervisor.stop()
    except* HerdsmanError as failures:
        raise _first(failures) from None
    finally:
        await supervisor.stop()  # also when the start failed half-way; a second call finds nothing to do


async def _start(settings: Settings, node: Node | None, supervisor: Supervisor, group: asyncio.TaskGroup) -> None:
    """The order of a start: what needs nobody first, and together what does not need each other."""
    begun = datetime.now(UTC)
    first, after = render_components(settings), list[Component]()
    async with asyncio.TaskGroup() as steps:
        if node is not None:
            containerd, after = render_node_components(settings)
            await supervisor.start(containerd, group)
            steps.create_task(_import_own_images(node), name="import-images")
        for component in first[:2]:
            await supervisor.start(component, group)
    async with asyncio.TaskGroup() as steps:
        for component in (*first[2:], *after):
            steps.create_task(supervisor.start(component, group), name=f"start-{component.name}")
    await wait_working(settings, begun)


async def _import_own_images(node: Node) -> None:
    """The two images that pods need before anything else; waits for containerd to answer."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            present = await containerd_client(node.enter(()), "images", "list", "--quiet", timeout_s=10.0)
            break
        except HerdsmanError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
    for name, make in ((PAUSE_IMAGE, images.pause_image), (images.BUSYBOX_IMAGE, images.busybox_image)):
        if name not in present.split():
            await import_image(node.enter(()), await asyncio.to_thread(make))


async def import_image(enter: tuple[str, ...], tarball: Path) -> str:
    """Gives an image tarball to containerd; returns what it says, one line an image."""
    with await asyncio.to_thread(tarball.open, "rb") as content:
        # Through stdin: the file's path need not exist in the node's mount namespace.
        return await containerd_client(enter, "images", "import", "-", stdin=content)


class _RunFile:
    """What others may know about a running cluster, written anew at each change."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._processes: dict[str, ProcessId] = {}
        self._ready = False
        self._write()

    def set_processes(self, processes: Mapping[str, ProcessId]) -> None:
        self._processes = dict(processes)
        self._write()

    def set_ready(self) -> None:
        self._ready = True
        self._write()

    def summary(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "name": settings.layout.name,
            "kubeconfig": str(settings.layout.kubeconfig),
            "server": settings.server,
            "full": settings.full,
            "host_address": settings.server_ip,
            "ca_file": settings.certificate(pki.CLUSTER_CA),
            "pids": {name: identity.pid for name, identity in self._processes.items()},
        }

    def _write(self) -> None:
        supervisor = ProcessId.current(os.getpid())
        document = self.summary() | {
            "ready": self._ready,
            "supervisor": supervisor.to_json() if supervisor else None,
            "processes": {name: identity.to_json() for name, identity in self._processes.items()},
            "origin": self._settings.binaries.origin,
        }
        write_private(self._settings.layout.run_file, json.dumps(document, indent=2))


@contextmanager
def _owned(layout: Layout) -> Iterator[None]:
    """Holds the folder's lock; the kernel lets go of it when this process ends, however it ends."""
    with layout.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f'cluster "{layout.name}" in {layout.root.parent} is running already') from error
        yield


def _first(failures: BaseExceptionGroup[HerdsmanError]) -> HerdsmanError:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
