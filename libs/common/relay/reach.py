"""One reverse connection made, whatever stands between: dial, switch by the carrier that passes, shake hands. Called by `dial`.

Some balancers pass no upgrade but WebSocket's. Which carrier passes is found by trying, in one and the same attempt, and remembered;
the plain one, which costs less, is tried again from time to time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from libs.common import errors
from libs.common.relay import outbound, tunnel
from libs.common.relay.handshake import (
    PLAIN,
    WEBSOCKET,
    Handshake,
    NotPassed,
    Silent,
    TunnelIdentity,
    Welcome,
    ask_for_switch,
    prove,
)
from libs.common.relay.outbound import Hub

_SILENCES = 3
"""So many in a row are no accident of the network."""
log = structlog.get_logger(component="relay")
PLAIN_AGAIN_S, PLAIN_AGAIN_MAX_S = 600.0, 7200.0


class Carriers:
    """Which carrier to try first. Pure but for the clock that is given."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.last_good = ""
        """The carrier that worked last; "" before the first."""
        self._monotonic = monotonic
        self._plain_again_at = 0.0
        self._pause_s = PLAIN_AGAIN_S
        self._silences = 0

    def order(self) -> tuple[str, str]:
        if self.last_good != WEBSOCKET:
            return PLAIN, WEBSOCKET
        now = self._monotonic()
        if now < self._plain_again_at:
            return WEBSOCKET, PLAIN
        # Moved on at once, so that one connection tries it and not all that are being dialled.
        self._pause_s = min(PLAIN_AGAIN_MAX_S, self._pause_s * 2)
        self._plain_again_at = now + self._pause_s * random.uniform(0.8, 1.2)
        return PLAIN, WEBSOCKET

    def forgives(self, carrier: str) -> bool:
        """Whether a silence on this carrier is taken for the network's: it worked before, and was not silent too often since."""
        self._silences += 1
        return carrier == self.last_good and self._silences < _SILENCES

    def worked(self, carrier: str, hub: Hub) -> None:
        self._silences = 0
        if carrier == self.last_good:
            return
        if carrier == WEBSOCKET:
            self._pause_s = PLAIN_AGAIN_S
            self._plain_again_at = self._monotonic() + PLAIN_AGAIN_S * random.uniform(0.8, 1.2)
        self.last_good = carrier
        log.info("tunnel_carrier_chosen", hub=hub.authority, carrier=carrier)


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection on which the hub may send requests. `rest` was read already and belongs to its first one."""

    transport: asyncio.Transport
    rest: bytes
    welcome: Welcome


async def reach(hub: Hub, identity: TunnelIdentity, carriers: Carriers) -> Reached:
    """Make one connection. Raises Superseded, Denied, or Unavailable with what is wrong."""
    refusals: list[NotPassed] = []
    for carrier in carriers.order():
        try:
            reached = await _reach_by(hub, identity, carrier)
        except NotPassed as exc:
            if isinstance(exc, Silent) and carriers.forgives(carrier):
                raise
            refusals.append(exc)
            continue
        carriers.worked(carrier, hub)
        return reached
    raise errors.Unavailable("; ".join(exc.message for exc in refusals))


async def _reach_by(hub: Hub, identity: TunnelIdentity, carrier: str) -> Reached:
    transport, connection = await outbound.connect(hub, Handshake)
    try:
        async with asyncio.timeout(tunnel.HANDSHAKE_S):
            await ask_for_switch(connection, hub, carrier)
            welcome = await prove(connection, identity)
    except TimeoutError as exc:
        transport.abort()
        raise Silent("the hub did not finish the handshake in time") from exc
    except BaseException:
        transport.abort()
        raise
    if connection.transport.is_closing():
        raise errors.Unavailable("the hub closed the connection after the handshake")
    return Reached(connection.transport, connection.hand_over(), welcome)
