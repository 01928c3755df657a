"""The wiring of the front door."""

from __future__ import annotations

import asyncio
import signal
import ssl
from pathlib import Path

from libs.common.access.live import start_live_grants
from libs.common.contracts.methods import AUDIT_IDENTITY
from libs.common.crypto.envelope import Signer
from libs.common.relay.pool import Address, Pool
from libs.common.relay.server import Engine, Limits, listen, listen_on
from libs.common.relay.sweeper import Sweeper
from libs.common.resources.federation import FederatedCredential
from libs.common.resources.identity import Group, User
from libs.common.resources.providers import IdentityProvider
from libs.common.runtime.config import ConfigError
from libs.common.runtime.host import Host
from libs.common.store.objects import Objects
from services.auth_proxy.agent_route import AgentRoute
from services.auth_proxy.audit_policy import LivePolicy
from services.auth_proxy.audit_start import start_audit
from services.auth_proxy.audit_stated import Stated
from services.auth_proxy.authenticate import Authenticator
from services.auth_proxy.authorities import Authorities
from services.auth_proxy.calls import Calls
from services.auth_proxy.cluster_route import ClusterRoute
from services.auth_proxy.cluster_tunnels import TunnelLimits
from services.auth_proxy.clusters import ClusterIndex
from services.auth_proxy.config import AuthProxyConfig, parse_address
from services.auth_proxy.direct import DirectClusters
from services.auth_proxy.figures import Figures
from services.auth_proxy.forwarded import TrustedProxies
from services.auth_proxy.gateway_route import GatewayRoute
from services.auth_proxy.inherited import take_sockets
from services.auth_proxy.leaving import Leaving
from services.auth_proxy.namespaces import NamespaceDesk
from services.auth_proxy.nats_route import NatsRoute
from services.auth_proxy.neighbours import Neighbours, has_neighbours
from services.auth_proxy.places import Places
from services.auth_proxy.recording_start import start_recording
from services.auth_proxy.revocation import Revoker
from services.auth_proxy.routes import Routes
from services.auth_proxy.token_cache import TokenCache
from services.auth_proxy.token_reports import TokenReports
from services.auth_proxy.tunnels import LocalTunnels, Tunnels
from services.auth_proxy.ways import Ways


async def build(host: Host[AuthProxyConfig]) -> None:
    config = host.config
    tls = load_tls(config.tls_certificate, config.tls_key)
    signer = Signer.load(config.identity_private_key, host.now)
    tokens = TokenCache(host.store("identity"), monotonic=host.monotonic)
    users = await host.informer("identity", "users")
    providers = await host.informer("identity", "identityproviders")
    credentials = await host.informer("identity", "federatedcredentials")
    groups = await host.informer("identity", "groups")
    clusters_informer = await host.informer("cluster_controller", "clusters")
    grants = await start_live_grants(host)
    policy = LivePolicy(await host.informer("authz", "auditpolicies"))

    audit = await start_audit(host)
    await host.serve(AUDIT_IDENTITY, Stated("identity", audit).take)
    figures = Figures()
    calls = Calls(audit, policy, lambda name: grants.current.clusters.get(name, ""), figures)
    sweeper = Sweeper()
    local = LocalTunnels(
        config.tunnel_wait_s, host.now, TunnelLimits(config.tunnel_wait_s, calls=config.max_calls_per_cluster)
    )
    neighbours: Neighbours | None = None

    def forget(cluster_uid: str) -> None:
        local.drop(cluster_uid)
        if neighbours is not None:
            neighbours.tunnels.forget(cluster_uid)

    clusters = ClusterIndex(clusters_informer, forget)
    neighbours = await Neighbours.start(host, calls, clusters, local, sweeper) if has_neighbours(config) else None
    tunnels: Tunnels = neighbours.tunnels if neighbours is not None else local
    authenticator = Authenticator(
        tokens,
        Objects(users, User),
        Objects(providers, IdentityProvider),
        Objects(credentials, FederatedCredential),
        Objects(groups, Group),
        host.now,
    )
    places = Places(await host.informer("project", "projects"))
    revoker = Revoker(calls, authenticator, grants)
    tokens.on_change.append(revoker.wake)
    places.on_change.append(revoker.wake)
    for informer in (users, providers, credentials, groups, clusters_informer):
        informer.subscribe(lambda _change: revoker.wake(), replay=False)
    grants.subscribe(lambda _grants: revoker.wake())

    figures.follow("herdsman_open_calls", "Calls under way", lambda: sum(map(len, calls.open.values())))
    figures.follow("herdsman_connected_clusters", "Clusters with a reverse connection", lambda: local.connected)
    if neighbours is not None:
        routed = neighbours.tunnels
        figures.follow("herdsman_hops", "Requests passed on to another process since the start", lambda: routed.hopped)

    sessions = start_recording(host, signer, policy, audit, figures)
    authorities = Authorities(
        config.ca_file,
        (config.tls_certificate, config.tls_key),
        lambda digest: setattr(local, "ca", digest),
        lambda: reload_tls(host, tls, neighbours),
    )
    agents = AgentRoute(clusters, local, lambda: authorities.pem)
    # As many as there may be clients: a limit of its own would be the easier one to exhaust.
    gateway = Pool(lambda: gateway_address(config), sweeper=sweeper, limit=config.max_connections)
    direct = DirectClusters(config.direct_clusters, sweeper)
    figures.follow("herdsman_direct_clusters", "Clusters that are reached without their agent", lambda: len(direct))
    nats_address = Address("the bus", *parse_address(config.nats_ws_address)) if config.nats_ws_address else None
    nats = Pool(lambda: nats_address, sweeper=sweeper) if nats_address else None
    ways = Ways(tunnels, direct)
    desk = NamespaceDesk(grants, places, calls, ways, gateway, signer, host.monotonic)
    routes = Routes(
        ClusterRoute(authenticator, grants, clusters.get, ways, calls, desk, sessions).route,
        agents.route,
        NatsRoute(nats, nats_address.authority if nats_address else b"").route,
        GatewayRoute(authenticator, signer, host.monotonic, gateway, calls),
        host.waiting_for,
        TrustedProxies(config.trusted_proxies),
        authenticator.fetch,
    )
    engine = Engine(
        routes.route, limits=Limits(sessions=config.max_connections), sweeper=sweeper, on_malformed=audit.malformed
    )

    figures.follow(
        "herdsman_remembered_tokens", "Tokens that are remembered, of all that are stored", lambda: len(tokens)
    )
    host.ready_when("changes of tokens", tokens.live.is_set)
    host.on_stop(tokens.close)
    host.spawn("changes of tokens", tokens.run())
    reports = TokenReports(tokens, host.bus)
    host.on_stop(reports.report)
    host.spawn("reports of used tokens", reports.run())
    host.spawn("revocation", revoker.run())
    host.spawn("tunnel pings", local.run())
    host.spawn("certificates", authorities.run())
    if config.direct_clusters is not None:
        host.spawn("direct clusters", direct.run())
    await host.synced()
    await tokens.live.wait()
    inherited = take_sockets()
    servers = (
        await listen_on(engine, inherited, tls)
        if inherited
        else [await listen(engine, *parse_address(config.listen), tls)]
    )
    if not inherited:
        write_address(config.listen_file, servers[0])
    leaving = Leaving(config, engine, servers, local, neighbours)
    if neighbours is not None:
        neighbours.announce(lambda: leaving.draining)

    async def stop() -> None:
        await leaving.run()
        agents.doorstep.close()
        local.close()
        direct.close()
        gateway.close()

    host.on_stop(stop)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload_tls, host, tls, neighbours)
    loop.add_signal_handler(signal.SIGUSR2, leaving.replaced)


def load_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """The server's context: TLS 1.2 or newer, HTTP/1.1 only. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"the certificate {certificate} with the key {key} cannot be used: {exc}") from exc
    return context


def reload_tls(host: Host[AuthProxyConfig], context: ssl.SSLContext, neighbours: Neighbours | None) -> None:
    """SIGHUP: new connections get the certificates that are in the files now; bad ones are reported and the old ones stay."""
    try:
        load_tls(host.config.tls_certificate, host.config.tls_key)
        if neighbours is not None:
            neighbours.reload_tls()
    except ConfigError as exc:
        host.log.error("certificate_refused", error=str(exc))
        return
    context.load_cert_chain(host.config.tls_certificate, host.config.tls_key)
    host.log.info("certificate_reloaded")


def gateway_address(config: AuthProxyConfig) -> Address:
    if config.gateway_socket is not None:
        return Address("the gateway", unix=config.gateway_socket)
    return Address("the gateway", *parse_address(config.gateway_address))


def write_address(file: Path | None, server: asyncio.Server) -> None:
    """Say where we listen, whole or not at all: whoever waits for the file reads it at once."""
    if file is not None:
        host, port = server.sockets[0].getsockname()[:2]
        fresh = file.with_name(f"{file.name}.new")
        fresh.write_text(f"{host}:{port}\n", encoding="ascii")
        fresh.replace(file)
