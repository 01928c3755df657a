"""How an engine comes to its end without losing anything that somebody began. Called by `server.Engine.stop`.

Answers say `Connection: close` from the first moment. A resting connection is closed after a while only: its client may be sending a
request this very moment, and HTTP/1.1 has no way to refuse it in time. Watches end between two chunks, spread over the window: clients ask
again from where they were, a few at a time. What switched protocols (exec, port-forward) can't be asked for again and lives to the end.

client-go takes a watch that ends cleanly and one that is torn off alike (`StreamWatcher.receive` reports neither) and goes on from its last
resourceVersion without a new list, unless the watch was shorter than a second and empty ("very short watch"), which it answers with a list.
Other clients raise an error for the torn one. Hence the clean end, and never of a watch younger than `_YOUNG_S`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from enum import Enum
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.relay.head import RequestHead

if TYPE_CHECKING:
    from libs.common.relay.exchange import Exchange
    from libs.common.relay.session import Session

_TICK_S = 0.1
_YOUNG_S = 1.5
_SPREAD = 0.7
"""The largest share of the window over which ends are spread; the rest is for what did not end in time."""
_PER_SECOND = 20.0
"""Few streams end soon, many one after the other: each comes back as a request to whoever goes on."""
_PATIENCE_S = 2.0


class Ending(Enum):
    """What becomes of a request that is still under way when the process goes."""

    FINISH = "it is short, or can't be asked for again: it has until the end of the window"
    BETWEEN_CHUNKS = "its client asks again: the answer ends cleanly at some moment of the window"
    CUT = "its client dials again by itself: both connections are cut at some moment of the window"


Ends = Callable[[RequestHead], Ending]


def let_finish(_head: RequestHead) -> Ending:
    return Ending.FINISH


class StreamEnder:
    """Ends the streams of one engine, each at a moment of its own. `run` lasts until it is cancelled."""

    def __init__(self, sessions: Iterable[Session], window_s: float, ends: Ends) -> None:
        self._sessions = sessions
        self._ends = ends
        self._due: dict[Exchange, float] = {}
        self._seen: dict[Exchange, int] = {}
        self._began = asyncio.get_running_loop().time()
        self._spread_s = window_s * _SPREAD

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.tick(asyncio.get_running_loop().time())

    def tick(self, now: float) -> None:
        running = [s.exchange for s in self._sessions if s.exchange is not None]
        if not self._due:
            self._spread_s = min(self._spread_s, 1.0 + len(running) / _PER_SECOND)
        for exchange in running:
            due = self._due.get(exchange)
            if due is None:
                due = self._due[exchange] = self._plan(exchange, now)
            if due <= now:
                self._end(exchange, due, now)
        for gone in self._due.keys() - set(running):
            del self._due[gone]
            self._seen.pop(gone, None)

    def _plan(self, exchange: Exchange, now: float) -> float:
        if self._ends(exchange.request) is Ending.FINISH:
            return float("inf")
        return max(self._began + random.uniform(0, self._spread_s), now, exchange.started + _YOUNG_S)

    def _end(self, exchange: Exchange, due: float, now: float) -> None:
        if self._ends(exchange.request) is Ending.CUT:
            exchange.fail(errors.Unavailable("this process of the hub is going away: connect again"))
            return
        # An object of a watch may come in several chunks, close behind each other: wait for a pause.
        rests = self._seen.get(exchange) == exchange.bytes_out
        self._seen[exchange] = exchange.bytes_out
        if rests or now - due > _PATIENCE_S:
            exchange.end_stream()
