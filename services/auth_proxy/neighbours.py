"""The other front-door processes, of this machine and of others: the wiring of registry, hops and the hop's own listener.

The listener has an engine, a route and a socket of its own. Nothing of it can be reached by the public address.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from libs.common.relay.server import Engine, Limits
from libs.common.relay.sweeper import Sweeper
from libs.common.runtime.host import Host
from services.auth_proxy.calls import Calls
from services.auth_proxy.clusters import ClusterIndex
from services.auth_proxy.config import AuthProxyConfig, parse_address
from services.auth_proxy.holders import Holder
from services.auth_proxy.hop import HopRoute, listen_local, listen_remote, load_hop_tls, socket_path
from services.auth_proxy.hops import Hops
from services.auth_proxy.registry import Registry
from services.auth_proxy.routed import RoutedTunnels
from services.auth_proxy.tunnels import LocalTunnels

BUCKET = "tunnels"
_IDLE_S = 120.0


def has_neighbours(config: AuthProxyConfig) -> bool:
    """Whether other processes may serve the same clusters; a restarted process's successor is one."""
    return config.hop_dir is not None or bool(config.hop_listen)


class Neighbours:
    """`tunnels` is what the cluster route takes its connections from; `engine` serves what others send."""

    def __init__(
        self, config: AuthProxyConfig, calls: Calls, clusters: ClusterIndex, local: LocalTunnels, sweeper: Sweeper
    ) -> None:
        self.worker = secrets.token_hex(8)
        self._config = config
        self._calls = calls
        self._local = local
        self._is_draining: Callable[[], bool] = lambda: False
        self._tls = None
        if config.hop_certificate and config.hop_key and config.hop_ca:
            self._tls = load_hop_tls(config.hop_certificate, config.hop_key, config.hop_ca)
        self.engine = Engine(
            HopRoute(clusters.get, local).route, limits=Limits(idle_s=_IDLE_S, sessions=config.max_connections)
        )
        self.hops = Hops(sweeper, self._tls[1] if self._tls else None, limit=config.max_connections)
        self._servers: list[asyncio.Server] = []
        self._address = ""
        self.registry: Registry
        self.tunnels: RoutedTunnels

    @classmethod
    async def start(
        cls,
        host: Host[AuthProxyConfig],
        calls: Calls,
        clusters: ClusterIndex,
        local: LocalTunnels,
        sweeper: Sweeper,
    ) -> Neighbours:
        """Listen, follow the others. Nobody is told of this process before `announce`."""
        made = cls(host.config, calls, clusters, local, sweeper)
        informer = await host.informer(BUCKET)
        made.registry = Registry(host.store(BUCKET), informer, made.worker, made._me)
        made.tunnels = RoutedTunnels(local, made.registry, made.hops, host.config.tunnel_wait_s)
        informer.subscribe(lambda _change: made._let_go(), replay=False)
        local.subscribe(made.registry.presence_changed)
        await made._listen()
        host.spawn("registry", made.registry.run())
        return made

    def announce(self, is_draining: Callable[[], bool]) -> None:
        self._is_draining = is_draining
        self.registry.announce()

    def reload_tls(self) -> None:
        """Read the hop's certificate again. Raises ConfigError and changes nothing when it is bad."""
        config = self._config
        if self._tls is not None and config.hop_certificate and config.hop_key and config.hop_ca:
            load_hop_tls(config.hop_certificate, config.hop_key, config.hop_ca)
            for context in self._tls:
                context.load_verify_locations(cafile=str(config.hop_ca))
                context.load_cert_chain(config.hop_certificate, config.hop_key)

    async def close(self) -> None:
        """The last step of leaving: the entry goes, then the listener and all kept connections."""
        await self.registry.withdraw()
        for server in self._servers:
            server.close()
        if self._config.hop_dir is not None:
            socket_path(self._config.hop_dir, self.worker).unlink(missing_ok=True)
        self.hops.close()

    async def _listen(self) -> None:
        config = self._config
        if config.hop_dir is not None:
            self._servers.append(await listen_local(self.engine, config.hop_dir, self.worker))
        if config.hop_listen and self._tls is not None:
            host, port = parse_address(config.hop_listen)
            server = await listen_remote(self.engine, host, port, self._tls[0])
            self._servers.append(server)
            bound = server.sockets[0].getsockname()[1]
            told = config.hop_host or host
            self._address = f"[{told}]:{bound}" if ":" in told else f"{told}:{bound}"

    def _me(self) -> Holder:
        folder = self._config.hop_dir
        return Holder(
            self.worker,
            unix=str(socket_path(folder, self.worker)) if folder is not None else "",
            address=self._address,
            draining=self._is_draining(),
            load=sum(map(len, self._calls.open.values())),
            clusters=self._local.counts(),
        )

    def _let_go(self) -> None:
        """Kept connections to processes that end are closed from this side, before the other side must close them under a request."""
        self.hops.keep_only({worker for worker, holder in self.registry.holders.items() if not holder.draining})
