"""One agent process and its connections: a cluster may have several side by side. Used by `cluster_tunnels`.

An agent that answers no ping, and of which nothing else is heard, is gone with all its connections: the busy ones are cut too,
because who reads from them would wait for ever.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from libs.common import errors
from libs.common.relay import sockets, tunnel
from libs.common.relay.head import END, parse_response
from libs.common.relay.upstream import Home, Upstream

log = structlog.get_logger(component="tunnels")
_MAX_ANSWER = 4096


@dataclass(frozen=True, slots=True)
class Claim:
    """What an agent said about itself, proved by its key. `ca` is the digest of the authorities that it trusts."""

    instance: str
    kube_system: str = ""
    ca: str = ""


class Connection(Upstream):
    """A reverse connection. `used` from the start: it rested at the hub, so the far side may have gone unnoticed."""

    __slots__ = ("given_away", "instance", "ping_at")

    def __init__(self, home: Home, instance: Instance, first_ping_at: float) -> None:
        super().__init__(home)
        self.instance = instance
        self.ping_at = first_ping_at
        self.used = True
        self.given_away = False

    def leave(self) -> asyncio.Transport:
        self.given_away = True
        return super().leave()

    def cut(self) -> None:
        """Close it and tell whoever uses it that the agent is gone."""
        conversation, self._conversation = self._conversation, None
        self.close()
        if conversation is not None:
            conversation.upstream_ended(ConnectionResetError("the agent is gone"))


class Ping:
    """One ping under way: a conversation like an exchange, so that nobody takes the connection meanwhile."""

    def __init__(self, connection: Connection, now: float, request: bytes) -> None:
        self.connection = connection
        self.sent = now
        self.deadline = now + tunnel.PING_TIMEOUT_S
        self.over = False
        self._part = b""
        connection.begin(self)
        connection.write(request)

    def response_data(self, data: bytes) -> None:
        self._part += data
        if END not in self._part:
            if len(self._part) > _MAX_ANSWER:
                self._end(clean=False)
            return
        try:
            head = parse_response(self._part)
            self._end(clean=head.status == 204 and not head.close)
        except errors.BadRequest:
            self._end(clean=False)

    def upstream_ended(self, error: BaseException | None) -> None:
        self.over = True

    def upstream_writable(self, writable: bool) -> None:
        """A ping is smaller than any buffer."""

    def expire(self) -> None:
        if not self.over:
            self._end(clean=False)

    def _end(self, *, clean: bool) -> None:
        self.over = True
        self.connection.end(clean)


class Instance:
    """Invariant: `idle` ⊆ `all`; `given` are the transports of streams that outlive their connection object."""

    def __init__(self, claim: Claim, now: float) -> None:
        self.name = claim.instance
        self.kube_system = claim.kube_system
        self.ca = claim.ca
        self.idle: list[Connection] = []
        self.all: set[Connection] = set()
        self.given: list[asyncio.Transport] = []
        self.retired = False
        """A later agent took its place: what runs may end, nothing new begins."""
        self._probe_at = now
        self._pings: list[Ping] = []

    @property
    def busy(self) -> int:
        return len(self.all) - len(self.idle) + len(self.given)

    def take(self) -> Connection | None:
        """The connection that rests for the shortest time."""
        while self.idle:
            connection = self.idle.pop()
            if connection.idle and not connection.transport.is_closing():
                return connection
        return None

    def forget(self, connection: Connection) -> None:
        """It is closed, or belongs to a stream now."""
        self.all.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)
        if connection.given_away:
            self.given.append(connection.transport)

    def retire(self) -> None:
        self.retired = True
        for connection in list(self.idle):
            connection.close()

    def cut(self) -> None:
        """End everything that it has."""
        for transport in self.given:
            transport.abort()
        self.given.clear()
        for connection in list(self.all):
            connection.cut()

    def prune(self) -> None:
        """Forget the streams that ended."""
        self.given = [transport for transport in self.given if not transport.is_closing()]

    def tick(self, now: float, request: Callable[[], bytes], *, all_at_once: bool) -> None:
        """Judge the pings that are due, send new ones. `all_at_once`: each resting connection now."""
        self.prune()
        for ping in self._pings:
            if ping.deadline <= now and not ping.over and not self._judge(ping, now):
                return
        self._pings = [ping for ping in self._pings if not ping.over]
        due = [c for c in self.idle if all_at_once or c.ping_at <= now]
        if not due and self.idle and self._probe_at <= now:
            due = [min(self.idle, key=lambda c: c.ping_at)]
        for connection in due:
            self.idle.remove(connection)
            connection.ping_at = now + tunnel.PING_EVERY_S * random.uniform(0.8, 1.2)
            self._pings.append(Ping(connection, now, request()))
        if due:
            self._probe_at = now + tunnel.PROBE_EVERY_S * random.uniform(0.8, 1.0)

    def _judge(self, ping: Ping, now: float) -> bool:
        """A ping is overdue. False: the whole instance was cut."""
        silent_s = sockets.silent_for_s(ping.connection.transport)
        if (
            silent_s is not None
            and silent_s < now - ping.sent
            and ping.deadline < ping.sent + 2 * tunnel.PING_TIMEOUT_S
        ):
            # The answer is here and was not read yet: this process was held up, not the agent.
            ping.deadline += tunnel.PING_TIMEOUT_S
            return True
        ping.expire()
        if self._is_heard():
            return True
        log.warning("agent_silent", instance=self.name, connections=len(self.all) + len(self.given))
        self.cut()
        return False

    def _is_heard(self) -> bool:
        """Whether anything came from it while the ping was out, on whatever connection; where the kernel can't say, pings answered count."""
        transports = [*self.given, *(c.transport for c in self.all)]
        ages = [age for transport in transports if (age := sockets.silent_for_s(transport)) is not None]
        if ages:
            return min(ages) < tunnel.PING_TIMEOUT_S
        return bool(self.idle)
