"""A hub for one test: real nats-server in operator mode, the real cluster_controller, the front door's real routes for agents and bus.

What it leaves out: the store is the in-memory one, and the gateway's registration route is a page of its own that hands
the request to the cluster_controller over the bus, as the gateway does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from libs.common import errors
from libs.common.bus import accounts, server
from libs.common.bus.base import Message
from libs.common.bus.nats import NatsBus, NatsOptions, connect
from libs.common.bus.revocation import AgentsAccount, RevocationList
from libs.common.bus.wire import parse
from libs.common.contracts import methods, subjects
from libs.common.contracts.messages import AgentRegistration, Heartbeat, NodesObserved
from libs.common.contracts.methods import Method
from libs.common.contracts.permissions import inbox_prefix
from libs.common.crypto.ca import KeyPair, generate_ca, issue_server
from libs.common.reconcile import Reconciler, follow
from libs.common.relay.decision import Decision, Relay
from libs.common.relay.head import RequestHead
from libs.common.relay.names import GATEWAY_REQUEST
from libs.common.relay.pool import Address, Pool
from libs.common.relay.rebuild import request_head, response_head
from libs.common.relay.server import Engine, listen
from libs.common.relay.session import Session
from libs.common.relay.sweeper import Sweeper
from services.auth_proxy.agent_route import AgentRoute
from services.auth_proxy.clusters import ClusterIndex
from services.auth_proxy.nats_route import NatsRoute
from services.auth_proxy.tunnels import LocalTunnels
from services.cluster_controller.credentials import AgentIssuer, follow_revocations
from services.cluster_controller.reconciler import watch_liveness
from tests.cluster_controller.made import Hub


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RealHub(Hub):
    """As `made.Hub`, with real clocks and a real bus. `url` and `ca_file` are what an agent is given."""

    url: str = ""
    ca_file: Path = Path()
    jwt_ttl_s: int = 600
    observed: list[NodesObserved] = field(default_factory=list)
    desired_asked: int = 0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


@asynccontextmanager
async def real_hub(folder: Path, jwt_ttl_s: int = 600) -> AsyncIterator[RealHub]:
    hub = RealHub(jwt_ttl_s=jwt_ttl_s, moment=datetime.now(UTC), ticks=time.monotonic())
    hub.wire()
    keys = await asyncio.to_thread(accounts.ensure_keys, folder / "keys")
    nats_port, ws_port = free_port(), free_port()
    signing = keys.seed("agents-signing")
    hub.issuer = AgentIssuer(
        lambda uid, key, ttl: accounts.issue_agent_jwt(signing, keys.public("agents"), uid, key, ttl, hub.now()),
        jwt_ttl_s,
        hub.now,
    )
    hub.registration._issuer = hub.agents._issuer = hub.issuer
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_nats_server(folder, keys, nats_port, ws_port))
        creds = folder / "service.creds"
        creds.write_text(accounts.service_credentials(keys, "cluster_controller", hub.now()))
        system = folder / "system.creds"
        system.write_text(accounts.system_credentials(keys, hub.now()))
        url = (f"nats://127.0.0.1:{nats_port}",)
        bus = await stack.enter_async_context(
            connect(NatsOptions(url, creds_file=creds, inbox_prefix=inbox_prefix("cluster_controller")))
        )
        listener_creds = folder / "listener.creds"
        listener_creds.write_text(accounts.administration_credentials(keys, hub.now()))
        listener = await stack.enter_async_context(connect(NatsOptions(url, creds_file=listener_creds)))
        hub.reconciler._bus = bus
        tasks = await stack.enter_async_context(_tasks())
        tasks(hub.informer.run())
        await hub.informer.synced.wait()
        reconciler = Reconciler("clusters", hub.reconciler.reconcile)
        hub.agents._enqueue = reconciler.add
        follow(hub.informer, reconciler, lambda c: (c.key.partition(".")[2],), prefix="clusters")
        tasks(reconciler.run())
        tasks(watch_liveness(hub.clusters, hub.liveness, bus, reconciler.add, hub.monotonic))
        account = AgentsAccount(
            keys.public("agents"), keys.public("platform"), keys.public("agents-signing"), keys.seed_file("operator")
        )
        tasks(follow_revocations(hub.informer, RevocationList(account, url, system, hub.now).push).run())
        await _serve(hub, bus, stack)

        async def note(message: Message) -> None:
            hub.observed.append(parse(NodesObserved, message.data))

        await stack.enter_async_context(listener.listen(subjects.observation("*", "nodes"), note))
        await _open_front(hub, folder, listener, ws_port, stack, tasks)
        yield hub


async def _serve(hub: RealHub, bus: NatsBus, stack: AsyncExitStack) -> None:
    async def count(request: Any, message: Message) -> Any:
        hub.desired_asked += 1
        return await hub.agents.handle_desired(request, message)

    table: list[tuple[Method[Any, Any], Callable[[Any, Message], Awaitable[BaseModel]]]] = [
        (methods.RENEW_AGENT, hub.agents.handle_renew), (methods.GET_DESIRED, count),
        (methods.REPORT_APPLIED, hub.agents.handle_applied), (methods.REGISTER_AGENT, hub.registration.handle_register),
    ]  # fmt: skip
    for method, handler in table:

        def bind(
            method: Method[Any, Any], handler: Callable[[Any, Message], Awaitable[BaseModel]]
        ) -> Callable[[Message], Awaitable[BaseModel]]:
            async def answer(message: Message) -> BaseModel:
                return await handler(parse(method.request, message.data), message)

            return answer

        await stack.enter_async_context(bus.serve(method.subject, bind(method, handler), queue="cluster_controller"))

    async def hear(message: Message) -> None:
        await hub.agents.listen_heartbeat(parse(Heartbeat, message.data), message)

    await stack.enter_async_context(bus.listen(subjects.heartbeat("*"), hear))


async def _open_front(
    hub: RealHub, folder: Path, bus: NatsBus, ws_port: int, stack: AsyncExitStack, tasks: Callable[[Any], None]
) -> None:
    pair: KeyPair = generate_ca("test hub", hub.now())
    leaf = issue_server(pair, ["127.0.0.1", "localhost"], hub.now())
    hub.ca_file = folder / "ca.crt"
    hub.ca_file.write_bytes(pair.certificate)
    (folder / "tls.crt").write_bytes(leaf.certificate)
    (folder / "tls.key").write_bytes(leaf.key)

    async def register(request: web.Request) -> web.Response:
        try:
            given = AgentRegistration.model_validate(await request.json())
            issued = await bus.request(methods.REGISTER_AGENT.subject, given, methods.REGISTER_AGENT.reply)
        except errors.HerdsmanError as exc:
            return web.json_response(exc.to_status(), status=exc.http_status)
        return web.json_response(issued.model_dump(mode="json"))

    app = web.Application()
    app.add_routes([web.post("/v1/agents/register", register)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    unix = folder / "gateway.sock"
    await web.UnixSite(runner, str(unix)).start()

    sweeper = Sweeper()
    tunnels = LocalTunnels(5.0, hub.now)
    agent_route = AgentRoute(ClusterIndex(hub.informer, tunnels.drop), tunnels)
    ws = Address("the bus", "127.0.0.1", ws_port)
    ws_pool = Pool(lambda: ws, sweeper=sweeper)
    nats_route = NatsRoute(ws_pool, ws.authority)
    gateway = Pool(lambda: Address("the gateway", unix=unix), sweeper=sweeper)

    def route(head: RequestHead, session: Session) -> Decision:
        if head.target.startswith(b"/agent/v1/"):
            return agent_route.route(head, session)
        if head.target.partition(b"?")[0] == b"/nats":
            return nats_route.route(head, session)
        built = request_head(head, head.target, allowed=GATEWAY_REQUEST)
        return Relay(gateway, built, lambda answer, close: response_head(answer, close=close))

    engine = Engine(route, sweeper=sweeper)
    tasks(tunnels.run())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    front = await listen(engine, "127.0.0.1", 0, tls)
    hub.url = f"https://127.0.0.1:{front.sockets[0].getsockname()[1]}"

    async def close() -> None:
        front.close()
        tunnels.close()
        await engine.stop(grace_s=0.2)
        gateway.close()
        ws_pool.close()

    stack.push_async_callback(close)


@asynccontextmanager
async def _tasks() -> AsyncIterator[Callable[[Any], None]]:
    running: list[asyncio.Task[None]] = []
    try:
        yield lambda work: running.append(asyncio.ensure_future(work))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@asynccontextmanager
async def _nats_server(folder: Path, keys: accounts.NatsKeys, port: int, ws_port: int) -> AsyncIterator[None]:
    now = datetime.now(UTC)
    settings = server.ServerSettings(
        folder / "nats",
        port,
        ws_port,
        accounts.operator_jwt(keys, now),
        keys.public("sys"),
        accounts.account_jwts(keys, now),
        64 << 20,
    )
    (folder / "nats").mkdir()
    config = folder / "nats.conf"
    config.write_text(server.render_config(settings))
    process = await asyncio.create_subprocess_exec(
        str(server.find_program()),
        "-c",
        str(config),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
