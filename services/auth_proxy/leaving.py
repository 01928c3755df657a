"""How a front-door process goes: nothing that somebody began is lost, and what can begin elsewhere does.

SIGTERM: readiness is withdrawn (by `runtime.run`), accepting goes on for `drain_delay_s`, then it ends; other processes and agents are told;
what runs has `drain_window_s`. SIGUSR2 is the same for a process whose successor has its socket already: no delay, `replace_window_s`.
The engine's part is `libs.common.relay.drain`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

import structlog

from libs.common.relay.drain import Ending, StreamEnder
from libs.common.relay.head import RequestHead
from libs.common.relay.server import Engine
from services.auth_proxy import nats_route
from services.auth_proxy.calls import is_watch
from services.auth_proxy.config import AuthProxyConfig
from services.auth_proxy.neighbours import Neighbours
from services.auth_proxy.tunnels import LocalTunnels

log = structlog.get_logger(component="drain")
_REST_SHARE = 0.25
_AGENTS_SHARE = 0.5


def find_ending(head: RequestHead) -> Ending:
    """Watches are asked for again by their clients, and an agent's bus client dials again by itself."""
    if head.upgrade:
        return Ending.CUT if head.target.partition(b"?")[0] in nats_route.PATHS else Ending.FINISH
    return Ending.BETWEEN_CHUNKS if is_watch(head.target) else Ending.FINISH


class Leaving:
    """`neighbours` is None where this process is the only one."""

    def __init__(
        self,
        config: AuthProxyConfig,
        engine: Engine,
        servers: Sequence[asyncio.Server],
        tunnels: LocalTunnels,
        neighbours: Neighbours | None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._servers = servers
        self._tunnels = tunnels
        self._neighbours = neighbours
        self._replaced = False
        self.draining = False
        """What the registry's entry says of this process."""

    def replaced(self) -> None:
        """For SIGUSR2: stop as on SIGTERM, but a successor accepts already."""
        self._replaced = True
        os.kill(os.getpid(), signal.SIGTERM)

    async def run(self) -> None:
        began = asyncio.get_running_loop().time()
        window_s = self._config.replace_window_s if self._replaced else self._config.drain_window_s
        self._engine.draining = True
        if self._config.drain_delay_s and not self._replaced:
            await asyncio.sleep(self._config.drain_delay_s)
        for server in self._servers:
            server.close()
        self.draining = True
        if self._neighbours is not None:
            self._neighbours.registry.announce()
        self._tunnels.drain()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(
                self._engine.stop(window_s, rest_s=window_s * _REST_SHARE, ends=find_ending), name="drain"
            )
            if self._neighbours is not None:
                tasks.create_task(self._drain_hop(self._neighbours.engine, window_s), name="drain-hop")
        if self._neighbours is not None:
            await self._neighbours.close()
        log.info("front_door_drained", seconds=round(asyncio.get_running_loop().time() - began, 1))

    async def _drain_hop(self, hop: Engine, window_s: float) -> None:
        """Others need this process while agents are connected to nobody else; only then its hop ends. Streams end from the beginning."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        hop.draining = True
        ender = asyncio.create_task(StreamEnder(hop.sessions, window_s, find_ending).run(), name="hop-stream-ender")
        changed = asyncio.Event()
        self._tunnels.subscribe(lambda _uid, _connected: changed.set())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(window_s * _AGENTS_SHARE):
                while self._tunnels.connected:
                    changed.clear()
                    await changed.wait()
        ender.cancel()
        await asyncio.gather(ender, return_exceptions=True)
        left_s = window_s - (loop.time() - began)
        await hop.stop(left_s, rest_s=left_s * _REST_SHARE, ends=find_ending)
