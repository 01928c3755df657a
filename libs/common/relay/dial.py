"""The agent's side of the relay: keep a few connections to the hub ready, and serve the requests that arrive on them.

`services.agent.tunnel` runs one `ReverseDialer`. Each connection goes `reach` → a `Session` of the ordinary engine whose route
hands each request to a `terminal`: check, credential, API server. `demand` says how many should be ready, `workers` which
processes of the hub still live.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable

import structlog

from libs.common import errors
from libs.common.relay import sockets, tunnel
from libs.common.relay.decision import Answer, Decision
from libs.common.relay.demand import Demand
from libs.common.relay.handshake import Superseded, TunnelIdentity
from libs.common.relay.head import RequestHead
from libs.common.relay.outbound import Hub
from libs.common.relay.pool import Address
from libs.common.relay.reach import Carriers, reach
from libs.common.relay.server import Engine, Limits
from libs.common.relay.session import Session
from libs.common.relay.sweeper import Sweeper
from libs.common.relay.terminal import Terminal
from libs.common.relay.workers import Workers

log = structlog.get_logger(component="relay")

_BACKOFF_MIN_S, _BACKOFF_MAX_S = 0.2, 15.0
_SUPERSEDED_S = 30.0
_SURPLUS_S = 60.0
_SHORT_LIFE_S = 5.0
_LOOK_EVERY_S = 1.0
_CAP = 2560
"""More than the hub lets be under way in one cluster (2,000), so that some always rest and can be pinged."""


def _ignore(_digest: str) -> None:
    """Nobody asked to be told."""


def new_instance() -> str:
    """An id for this process, for `TunnelIdentity.instance`."""
    return secrets.token_hex(8)


class ReverseDialer:
    """Invariant: at least `idle` connections rest at the hub, as long as it answers and no more than `cap` are open in all.

    `api_server`, `authorization` and `refused` are those of `terminal`. `on_ca` hears the digest of the hub's certificate authorities
    whenever the hub says it.
    """

    def __init__(
        self,
        hub: Hub,
        identity: TunnelIdentity,
        api_server: Callable[[], Address],
        authorization: Callable[[], bytes],
        *,
        idle: int = 4,
        cap: int = _CAP,
        sweeper: Sweeper | None = None,
        refused: Callable[[], None] = lambda: None,
        on_ca: Callable[[str], None] = _ignore,
    ) -> None:
        self._hub = hub
        self._identity = identity
        self._on_ca = on_ca
        self._sweeper = sweeper or Sweeper()
        self._terminal = Terminal(api_server, authorization, sweeper=self._sweeper, refused=refused)
        self._engine = Engine(
            self._route,
            limits=Limits(idle_s=tunnel.SILENCE_S, sessions=cap, vanished_s=sockets.PROMPT_DEAD_S),
            sweeper=self._sweeper,
            on_busy=self._on_busy,
            on_idle=self._on_idle,
            on_closed=self._on_closed,
        )
        self._demand = Demand(idle, cap, asyncio.get_running_loop().time())
        self._carriers = Carriers(asyncio.get_running_loop().time)
        self._workers = Workers()
        self._resting: dict[Session, float] = {}
        self._born: dict[Session, float] = {}
        self._dialling = 0
        self._attempt = 0
        self._pause_s = 0.0
        self._next_failure = 0.0
        self._changed = asyncio.Event()
        self.last_error = ""
        """Why the last dial failed; empty while connected."""

    @property
    def connected(self) -> int:
        """Open connections to the hub, resting and serving."""
        return len(self._engine.sessions)

    @property
    def serving(self) -> int:
        return self.connected - len(self._resting)

    @property
    def carrier(self) -> str:
        """What carries the connections: "plain" or "websocket"; "" before the first."""
        return self._carriers.last_good

    async def run(self) -> None:
        """Until cancelled. Failures are retried for ever with jitter; the first of each kind is logged."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look(), name="reverse-look")
                while True:
                    self._changed.clear()
                    for _ in range(self._missing()):
                        self._dialling += 1
                        tasks.create_task(self._dial(), name="reverse-dial")
                    await self._changed.wait()
        finally:
            await self._engine.stop(grace_s=3.0)
            self._terminal.close()

    def _missing(self) -> int:
        staying = sum(1 for session in self._resting if not self._workers.is_draining(session))
        missing = self._demand.missing(staying, self.connected, self._dialling)
        # While the hub does not answer one probe is enough; a thousand agents do the same.
        return min(missing, max(0, 1 - self._dialling)) if self._attempt else missing

    async def _look(self) -> None:
        """Once a second: is the hub still there, and do we keep more than is needed?"""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._demand.look(len(self._resting), loop.time())
            self._workers.cut_silent(loop.time(), self._resting)

    async def _dial(self) -> None:
        try:
            if self._pause_s:
                await asyncio.sleep(self._pause_s)
            await self._dial_once()
        except errors.HerdsmanError as exc:
            self._failed(exc)
        else:
            if self.last_error:
                log.info("hub_connection_restored", hub=self._hub.authority)
            self.last_error = ""
            # Not yet proof: the hub may close it at once. One at a time, without long waits, until it speaks.
            self._pause_s = min(self._pause_s, 1.0)
        finally:
            self._dialling -= 1
            self._changed.set()

    async def _dial_once(self) -> None:
        reached = await reach(self._hub, self._identity, self._carriers)
        now = asyncio.get_running_loop().time()
        session = Session(self._engine)
        transport = reached.transport
        self._resting[session] = self._born[session] = now
        self._workers.add(session, reached.welcome.worker, now)
        transport.set_protocol(session)
        session.adopt(transport)
        sockets.tune(transport, sockets.PROMPT_KEEPALIVE)
        session.deadline = now + tunnel.SILENCE_S
        self._demand.told(reached.welcome.waiting)
        self._on_ca(reached.welcome.ca)
        if reached.rest:
            session.data_received(reached.rest)

    def _failed(self, exc: errors.HerdsmanError) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._next_failure:
            # Connections that fail together are one failure: a balancer that restarts would else cost the longest pause at once.
            self._next_failure = now + _BACKOFF_MIN_S
            self._attempt += 1
            ceiling = min(_BACKOFF_MAX_S, _BACKOFF_MIN_S * 2.0 ** min(self._attempt, 10))
            self._pause_s = random.uniform(_BACKOFF_MIN_S, ceiling)
        if isinstance(exc, Superseded):
            self._pause_s = _SUPERSEDED_S + random.uniform(0, _SUPERSEDED_S)
        if exc.message != self.last_error:
            (log.error if isinstance(exc, (Superseded, errors.Denied)) else log.warning)(
                "hub_connection_failed", hub=self._hub.authority, error=exc.message, retry_in_s=round(self._pause_s, 1)
            )
        self.last_error = exc.message

    # the engine's hooks

    def _on_busy(self, session: Session) -> None:
        self._proved(session)
        if self._resting.pop(session, None) is not None:
            self._changed.set()

    def _on_idle(self, session: Session) -> None:
        self._proved(session)
        self._resting.setdefault(session, asyncio.get_running_loop().time())

    def _proved(self, session: Session) -> None:
        """The hub spoke on a connection: whatever failed before is over."""
        self._workers.heard(session, asyncio.get_running_loop().time())
        if self._attempt:
            self._attempt, self._pause_s = 0, 0.0
            self._changed.set()

    def _on_closed(self, session: Session) -> None:
        self._resting.pop(session, None)
        self._workers.remove(session)
        born = self._born.pop(session, 0.0)
        if not session.requests and asyncio.get_running_loop().time() - born < _SHORT_LIFE_S:
            self._failed(errors.Unavailable("the hub closed the connection right after the handshake"))
        elif not self._engine.sessions and not self._attempt:
            # All went at once: the hub restarts, and every other agent of it dials now too.
            self._pause_s = random.uniform(_BACKOFF_MIN_S, 10 * _BACKOFF_MIN_S)
            self._attempt = 1
        self._changed.set()

    # requests

    def _route(self, head: RequestHead, session: Session) -> Decision:
        if head.method == b"OPTIONS" and head.target == b"*" and head.value(tunnel.PING_HEADER):
            return self._answer_ping(head, session)
        try:
            return self._terminal.relay(head)
        except errors.HerdsmanError as exc:
            log.warning("request_refused", error=exc.message, path=head.target.partition(b"?")[0].decode("latin-1"))
            raise

    def _answer_ping(self, head: RequestHead, session: Session) -> Answer:
        """Connections are given up only in answer to a ping: then the hub can't be sending a request on them."""
        self._on_ca(head.value(tunnel.CA_HEADER).decode("ascii", "replace"))
        if head.value(tunnel.DRAIN_HEADER):
            self._workers.drain(session)
            self._changed.set()
            return Answer(204, close=any(not self._workers.is_draining(other) for other in self._resting))
        since = self._resting.get(session)
        now = asyncio.get_running_loop().time()
        surplus = since is not None and len(self._resting) > self._demand.target and now - since > _SURPLUS_S
        return Answer(204, close=surplus)
