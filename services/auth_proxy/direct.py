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

    url: str
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
    """`run` follows the folder and owns all tasks. `folder` None: there are no such clusters.

    A file that replaces another counts from when its credential was read; until then, and when it never can be, the one before serves.
    """

    def __init__(self, folder: Path | None, sweeper: Sweeper) -> None:
        self._folder = folder
        self._sweeper = sweeper
        self._seen: dict[str, _Seen] = {}
        self._clusters: dict[str, _Direct] = {}
        self._coming: dict[str, _Direct] = {}
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
            while True:
                self._look(tasks)
                await asyncio.sleep(LOOK_EVERY_S)

    def _look(self, tasks: asyncio.TaskGroup) -> None:
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
                made = self._load(name, file)
                if made is not None:
                    made.task = tasks.create_task(self._serve(name, made), name=f"direct cluster {name}")

    def close(self) -> None:
        """Close all idle connections."""
        for cluster in self._clusters.values():
            cluster.terminal.close()

    def _load(self, name: str, file: Path) -> _Direct | None:
        try:
            loaded = direct_file.load(file)
            self._seen[name].others = {other: direct_file.mark_of(other) for other in loaded.others}
            server = ApiServer(f'the API server of cluster "{name}"', loaded.endpoint)
        except errors.HerdsmanError as exc:
            kept = "the one before stays in use" if name in self._clusters else "the cluster is reached by its agent"
            log.error("direct_cluster_refused", cluster=name, file=str(file), error=exc.message, kept=kept)
            return None
        terminal = Terminal(server.address, server.authorization, sweeper=self._sweeper, refused=server.refused)
        return _Direct(loaded.endpoint.url, server, terminal)

    async def _serve(self, name: str, made: _Direct) -> None:
        """Put it in place, in that of the one before once its credential is there, and keep the credential fresh."""
        late = self._coming.pop(name, None)
        if late is not None:
            self._end(late)
        if name in self._clusters:
            self._coming[name] = made
            await made.server.refresh()
            while made.server.problem:
                await asyncio.sleep(LOOK_EVERY_S)
                await made.server.refresh()
            del self._coming[name]
            self._end(self._clusters[name])
            self._install(name, made)
        else:
            self._install(name, made)
            await made.server.refresh()
        await made.server.run()

    def _install(self, name: str, made: _Direct) -> None:
        self._clusters[name] = made
        log.info("direct_cluster_taken", cluster=name, api_server=made.url)

    def _drop(self, name: str) -> bool:
        found = [c for c in (self._clusters.pop(name, None), self._coming.pop(name, None)) if c is not None]
        for cluster in found:
            self._end(cluster)
        return bool(found)

    def _end(self, cluster: _Direct) -> None:
        if cluster.task is not None:
            cluster.task.cancel()
        cluster.terminal.close()
