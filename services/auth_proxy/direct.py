"""Clusters that the front door reaches itself: a kubeconfig for each in one folder, `<cluster>.kubeconfig`, on a disk or a mounted Secret.

Only where the bytes go differs from an agent's connection. Who may call, as whom, what is written down and what is cut is decided by the same
code, and the request ends in the same `relay.terminal`. Nothing of a file leaves this process; `direct_file` says which files are taken.
A cluster that has a good file is served by it, whether an agent is connected or not.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from libs.common import errors
from libs.common.relay.api_server import ApiServer
from libs.common.relay.sweeper import Sweeper
from libs.common.relay.terminal import Terminal
from services.auth_proxy import direct_file
from services.auth_proxy.direct_file import Mark

LOOK_EVERY_S = 2.0
log = structlog.get_logger(component="direct")


@dataclass(slots=True)
class _Direct:
    """One cluster's way. `uid`: the cluster that was first reached by this file; another of the same name is another cluster."""

    server: ApiServer
    terminal: Terminal
    task: asyncio.Task[None] | None = None
    uid: str = ""


@dataclass(slots=True)
class _Seen:
    """A file as last looked at: with its own mark and those of the files that it names."""

    mark: Mark
    others: dict[Path, Mark] = field(default_factory=dict)


class DirectClusters:
    """`look` reads what is new in the folder, `run` does so for ever and owns all tasks. `folder` None: there are no such clusters."""

    def __init__(self, folder: Path | None, sweeper: Sweeper) -> None:
        self._folder = folder
        self._sweeper = sweeper
        self._seen: dict[str, _Seen] = {}
        self._clusters: dict[str, _Direct] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._folder_problem = ""

    def __len__(self) -> int:
        return len(self._clusters)

    def find(self, name: str, uid: str) -> Terminal | None:
        """The way to the cluster, if it has one of its own."""
        found = self._clusters.get(name)
        if found is None:
            return None
        if found.uid != uid:
            if found.uid:
                # The file was put there for a cluster that is gone: nobody said that it leads to the new one.
                log.error(
                    "direct_cluster_dropped",
                    cluster=name,
                    reason="another cluster has the name now: put the file there anew",
                )
                self._drop(name)
                return None
            found.uid = uid
        return found.terminal

    async def run(self) -> None:
        """Follow the folder, for ever."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for name, cluster in self._clusters.items():
                self._start(name, cluster)
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                await self.look()

    async def look(self) -> None:
        """Take files that are new or changed, let go of those that went. A bad one is reported once, and what was good before stays."""
        if self._folder is None:
            return
        try:
            files = direct_file.find_files(self._folder)
        except errors.HerdsmanError as exc:
            if exc.message != self._folder_problem:
                log.error("direct_folder_refused", error=exc.message)
            self._folder_problem = exc.message
            return
        self._folder_problem = ""
        for name in self._seen.keys() - files.keys():
            del self._seen[name]
            if self._drop(name):
                log.info("direct_cluster_removed", cluster=name)
        for name, file in files.items():
            mark = direct_file.mark_of(file)
            seen = self._seen.get(name)
            if seen is None or seen.mark != mark or any(direct_file.mark_of(f) != m for f, m in seen.others.items()):
                self._seen[name] = _Seen(mark)
                await self._take(name, file)

    def close(self) -> None:
        """Close all idle connections."""
        for cluster in self._clusters.values():
            cluster.terminal.close()

    async def _take(self, name: str, file: Path) -> None:
        try:
            loaded = direct_file.load(file)
            self._seen[name].others = {other: direct_file.mark_of(other) for other in loaded.others}
            server = ApiServer(f'the API server of cluster "{name}"', loaded.endpoint)
        except errors.HerdsmanError as exc:
            kept = (
                "the one before stays in use" if name in self._clusters else "the cluster is reached through its agent"
            )
            log.error("direct_cluster_refused", cluster=name, file=str(file), error=exc.message, kept=kept)
            return
        await server.refresh()
        terminal = Terminal(server.address, server.authorization, sweeper=self._sweeper, refused=server.refused)
        before = self._clusters.get(name)
        made = _Direct(server, terminal)
        self._clusters[name] = made
        if before is not None:
            self._end(before)
        self._start(name, made)
        log.info("direct_cluster_taken", cluster=name, api_server=loaded.endpoint.url, replaced=before is not None)

    def _start(self, name: str, cluster: _Direct) -> None:
        if self._tasks is not None:
            cluster.task = self._tasks.create_task(cluster.server.run(), name=f"direct credential {name}")

    def _drop(self, name: str) -> bool:
        cluster = self._clusters.pop(name, None)
        if cluster is not None:
            self._end(cluster)
        return cluster is not None

    def _end(self, cluster: _Direct) -> None:
        if cluster.task is not None:
            cluster.task.cancel()
        cluster.terminal.close()
