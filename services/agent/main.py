"""The agent's whole wiring: settings, state, identity, then everything that runs while that identity lasts. Started by `__main__`."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import structlog

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.bus.credentials import Credential
from libs.common.bus.nats import NatsBus, NatsOptions, connect
from libs.common.bus.wire import parse
from libs.common.contracts import subjects
from libs.common.contracts.messages import Notice
from libs.common.kube.client import KubeClient
from libs.common.kube.discovery import Discovery
from libs.common.kube.endpoint import Endpoint
from libs.common.kube.in_cluster import load_in_cluster
from libs.common.kube.kubeconfig import load_kubeconfig
from libs.common.observe import log as logs
from libs.common.observe import probes
from libs.common.relay.outbound import Hub
from libs.common.runtime import collector, loop
from libs.common.version import VERSION
from services.agent.apply import Applier
from services.agent.authorities import Authorities
from services.agent.config import SECRET, AgentConfig, parse_arguments
from services.agent.credential import CredentialKeeper, FreshToken, watch_token
from services.agent.desired import DesiredKeeper
from services.agent.detach import Detacher
from services.agent.guard_owned import Guard
from services.agent.health import PATIENCE_S, Health
from services.agent.heartbeat import ApiServerProbe, HeartbeatSender, Sources
from services.agent.identity import digest_of, read_token, register, trust
from services.agent.observe_namespaces import NamespaceObserver
from services.agent.observe_nodes import NodeObserver
from services.agent.state import FileState, Identity, Kept, SecretState, State
from services.agent.trials import Trials
from services.agent.tunnel import Tunnel

REPLACEMENT_TIMEOUT_S = 30.0
LOOK_AT_BUS_S = 0.25
ROUND_TRIP_EVERY_S = 15.0
ROUND_TRIP_PATIENCE_S = 10.0
STOP_PATIENCE_S = 6.0
"""How long a stop may take before all that is still running is told again: more than the time that open calls are given."""
SETTLE_PATIENCE_S = 10.0
"""A hub that can't be asked what should be, or a cluster that can't be brought there, keeps nobody out for longer than this."""
EXIT_FAILED = 1

AGENT_STARTED = "agent_started"
PROBES_ANSWERED = "probes_answered"
SERVED_UNSETTLED = "served_before_settled"
AGENT_STOPPED = "agent_stopped"
AGENT_STOPS_SLOWLY = "agent_stops_slowly"
AGENT_FAILED = "agent_failed"
TOKEN_REPLACED = "registration_token_replaced"  # noqa: S105 - the name of an event
TOKEN_REFUSED = "registration_token_refused"  # noqa: S105 - the name of an event
log = structlog.get_logger(__name__)


class Detached(Exception):
    """Nothing of ours is left in the cluster: the process has no more to do."""


@dataclass(slots=True)
class Agent:
    """What lasts as long as the process; identities come and go."""

    config: AgentConfig
    hub: Hub
    endpoint: Endpoint
    client: KubeClient
    state: State
    refused: set[str]
    """Digests of registration tokens that were exchanged, or that the hub refused: not tried again."""
    health: Health
    authorities: Authorities

    async def run(self) -> None:
        """Until detached (returns) or stopped (cancelled). Raises when it cannot get an identity, with what to do."""
        while True:
            identity, fresh = await self._obtain_identity()
            if self.config.cluster_name and identity.cluster != self.config.cluster_name:
                raise errors.Invalid(
                    f'this agent is registered for cluster "{identity.cluster}", not for "{self.config.cluster_name}": '
                    "give it the registration token and the state folder of the right one"
                )
            detached = False
            self.health.turn("hub")
            try:
                await self._serve(identity, fresh=fresh)
            except* Detached:
                detached = True
            except* FreshToken:
                log.info(TOKEN_REPLACED, cluster=identity.cluster)
            self.health.unregistered()
            if detached:
                return

    async def _obtain_identity(self) -> tuple[Identity, bool]:
        """The identity to use, and whether it is new. A token that was not exchanged yet is the wish to register anew."""
        stored = await self.state.load_identity()
        token = read_token(self.config.registration_token_file)
        digest = digest_of(token)
        if stored is not None:
            self.refused.add(stored.token_digest)
            self.authorities.resume(stored)
        if not token or digest in self.refused:
            if stored is None:
                raise errors.Invalid(
                    "the agent is not registered and has no fresh registration token: issue one (herdsman cluster import NAME) "
                    "and give it with --registration-token-file"
                )
            return stored, False
        try:
            # Whoever is registered already must not stop enforcing because the hub is away.
            async with asyncio.timeout(REPLACEMENT_TIMEOUT_S if stored is not None else None):
                identity = await register(self.hub, token, sleep=self._pause)
        except TimeoutError:
            assert stored is not None
            return stored, False
        except errors.HerdsmanError as exc:
            if stored is None:
                raise
            self.refused.add(digest)
            log.error(TOKEN_REFUSED, error=exc.message, cluster=stored.cluster, cluster_id=stored.cluster_uid)
            return stored, False
        if stored is None or stored.cluster_uid != identity.cluster_uid:
            kept = await self.state.load_kept()
            # Another cluster's desired set is not ours to enforce; the kinds say where its objects are, to be pruned.
            await self.state.save_kept(Kept(kinds=kept.kinds))
        if stored is not None:
            # Whom it was registered with is known by what was learned, not by what was given once.
            identity = replace(identity, hub_ca=stored.hub_ca, given_ca=stored.given_ca)
        await self.state.save_identity(identity)
        self.refused.add(digest)
        return identity, True

    async def _pause(self, seconds: float) -> None:
        """Between two tries to register: as long as it tries, the agent lives."""
        self.health.turn("hub", seconds + PATIENCE_S)
        await asyncio.sleep(seconds)

    async def _serve(self, identity: Identity, *, fresh: bool) -> None:
        """Everything that runs under one identity. Ends by an exception group: FreshToken, Detached, or a failure."""
        uid = identity.cluster_uid
        credentials = CredentialKeeper(identity, self.state, fresh=fresh)

        async def credential() -> Credential:
            self.health.turn("hub")  # asked for before each dial
            return await credentials.credential()

        discovery = Discovery(self.client)
        options = NatsOptions(
            servers=(self.config.bus_url,), name=f"agent-{identity.cluster}", credential=credential,
            inbox_prefix=subjects.agent_inbox(uid), tls=lambda: self.authorities.context,
        )  # fmt: skip
        async with connect(options) as bus:
            namespace = "" if self.config.state_dir is not None else self.endpoint.namespace
            detacher = Detacher(self.client, discovery, bus, uid, self.state, namespace)
            applier = Applier(self.client, discovery)
            desired = DesiredKeeper(bus, uid, self.state, await self.state.load_kept(), applier, detacher.run)
            nodes = NodeObserver(self.client, bus, uid)
            namespaces = NamespaceObserver(self.client, bus, uid)
            tunnel = Tunnel(
                self.hub, identity, self.endpoint, self.config.tunnels,
                client=self.client, authorities=self.authorities,
            )  # fmt: skip
            probe = ApiServerProbe(self.client)

            def acting_as(user: str, groups: tuple[str, ...]) -> KubeClient:
                return KubeClient(
                    self.endpoint, user_agent=f"herdsman-agent/{VERSION}", connections=2, as_user=user, as_groups=groups
                )

            trials = Trials(self.client, discovery, bus, uid, desired, acting_as)
            heartbeat = HeartbeatSender(
                bus, uid, Sources(probe, lambda: nodes.count, lambda: tunnel.open, lambda: desired.applied_set, lambda: self.authorities.digest, lambda: tunnel.carrier),
                lambda: self.health.turn("heartbeat"),
            )  # fmt: skip
            self.health.registered(lambda: tunnel.open)

            async def hear(message: Message) -> None:
                said = parse(Notice, message.data)
                desired.notice(said.hash, said.spread_s)

            async def detach_when_told() -> None:
                await desired.run()
                raise Detached

            collector.settle()
            async with bus.listen(subjects.notice(uid), hear), asyncio.TaskGroup() as tasks:
                log.info(
                    AGENT_STARTED,
                    cluster=identity.cluster,
                    cluster_id=uid,
                    hub=self.hub.authority,
                    version=VERSION,
                )
                tasks.create_task(probe.run(), name="api server probe")
                tasks.create_task(heartbeat.run(), name="heartbeat")
                tasks.create_task(detach_when_told(), name="desired")
                tasks.create_task(Guard(self.client, discovery, applier, desired).run(), name="guard")
                tasks.create_task(trials.run(), name="trials")
                tasks.create_task(nodes.run(), name="nodes")
                tasks.create_task(namespaces.run(), name="namespaces")
                tasks.create_task(_open_when_settled(tunnel, desired), name="tunnel")
                tasks.create_task(self.authorities.run(credentials), name="authorities")
                tasks.create_task(credentials.run(bus), name="credential")
                tasks.create_task(watch_token(self.config.registration_token_file, self.refused), name="token")
                tasks.create_task(_watch_bus(bus, heartbeat, desired, nodes, namespaces), name="bus watch")
                tasks.create_task(_prove_bus(bus, self.health), name="bus proof")


async def _open_when_settled(tunnel: Tunnel, desired: DesiredKeeper) -> None:
    """Serve once what changed while the agent was away is applied, so that nobody uses a right that went meanwhile; but serve."""
    try:
        async with asyncio.timeout(SETTLE_PATIENCE_S):
            await desired.settled.wait()
    except TimeoutError:
        log.warning(SERVED_UNSETTLED)
    await tunnel.run()


async def _watch_bus(
    bus: NatsBus, heartbeat: HeartbeatSender, desired: DesiredKeeper, *observers: NodeObserver | NamespaceObserver
) -> None:
    """Tell everybody who must repeat something that the bus is back."""
    seen = bus.connection.epoch
    while True:
        await asyncio.sleep(LOOK_AT_BUS_S)
        if bus.connected and bus.connection.epoch != seen:
            seen = bus.connection.epoch
            heartbeat.reconnected()
            desired.reconnected()
            for observer in observers:
                observer.reconnected()


async def _prove_bus(bus: NatsBus, health: Health) -> None:
    """A round trip to the hub now and then; while there is no connection, each dial says that it is being tried."""
    while True:
        try:
            async with asyncio.timeout(ROUND_TRIP_PATIENCE_S):
                await bus.connection.round_trip()
        except (errors.Unavailable, TimeoutError):
            await asyncio.sleep(LOOK_AT_BUS_S)
            continue
        health.turn("hub")
        await asyncio.sleep(ROUND_TRIP_EVERY_S)


async def build(config: AgentConfig) -> int:
    """Make what lasts and run it. Returns the exit code."""
    try:
        hub = Hub(config.hub, trust(config.ca_file))
        authorities = Authorities(hub, config.ca_file)
        endpoint = (
            load_kubeconfig([config.kubeconfig], config.context) if config.kubeconfig is not None else load_in_cluster()
        )
        async with AsyncExitStack() as stack:
            health = Health()
            if config.health_listen:
                host, port = await stack.enter_async_context(probes.serve(config.health_listen, health.answers()))
                log.info(PROBES_ANSWERED, address=f"{host}:{port}")
            client = await stack.enter_async_context(KubeClient(endpoint, user_agent=f"herdsman-agent/{VERSION}"))
            state: State = (
                FileState(config.state_dir)
                if config.state_dir is not None
                else SecretState(client, endpoint.namespace, SECRET)
            )
            await Agent(config, hub, endpoint, client, state, set(), health, authorities).run()
    except errors.HerdsmanError as exc:
        log.error(AGENT_FAILED, error=exc.message)
        return EXIT_FAILED
    except BaseExceptionGroup as group:
        for failure in group.exceptions:
            log.error(AGENT_FAILED, error=str(failure) or type(failure).__name__, exc_info=failure)
        return EXIT_FAILED
    return 0


async def _run_until_stopped(config: AgentConfig) -> int:
    """SIGTERM and SIGINT stop it: open calls get three seconds, then it goes."""
    asyncio.get_running_loop().set_exception_handler(loop.report)
    running = asyncio.create_task(build(config), name="agent")
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    waiting = asyncio.create_task(told.wait(), name="signal")
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        return running.result()
    running.cancel()
    while not (await asyncio.wait([running], timeout=STOP_PATIENCE_S))[0]:
        # A task that did not hear it (a library's wait swallows a cancellation now and then) would hold up all others.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        log.warning(AGENT_STOPS_SLOWLY, waiting_for=sorted(task.get_name() for task in left))
        for task in left:
            task.cancel()
    log.info(AGENT_STOPPED)
    return 0 if running.cancelled() else running.result()


def main() -> None:
    """Entry point of `herdsman-agent` and `python -m services.agent`."""
    import uvloop

    config = parse_arguments(sys.argv[1:])
    logs.configure("agent", config.log_level, "json" if config.log_format == "json" else "console")
    sys.exit(uvloop.run(_run_until_stopped(config)))
