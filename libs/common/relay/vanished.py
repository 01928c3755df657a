"""Peers that vanished while something was on its way to them: the kernel would try for a quarter of an hour before it said so.

The keep-alive (`sockets.tune`) is at work only while nothing is under way; one answer that was not acknowledged any more switches it off.
Used by `server.Engine`, at the hub for clients and at an agent for the hub.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

import structlog

from libs.common.relay import sockets

if TYPE_CHECKING:
    from libs.common.relay.session import Session

AT_A_TIME = 400
"""Sessions looked at in one tick: the look asks the kernel, some microseconds each."""
log = structlog.get_logger(component="relay")


class VanishedPeers:
    """Swept with the engine's deadlines: a part of its sessions at each tick, all of them in turn."""

    def __init__(self, sessions: Set[Session], limit_s: float) -> None:
        self._sessions = sessions
        self._limit_s = limit_s
        self._left: list[Session] = []
        self.deadline = 0.0

    def expire(self, now: float) -> None:
        """Look at the next sessions; at all again when every one had its turn, not sooner than a second later."""
        self.deadline = now + 1.0
        if not self._left:
            self._left = list(self._sessions)
        looked, self._left = self._left[:AT_A_TIME], self._left[AT_A_TIME:]
        for session in looked:
            unheard_s = sockets.unheard_for_s(session.transport)
            if unheard_s >= self._limit_s:
                log.info("peer_vanished", peer=session.peer, unheard_s=round(unheard_s, 1))
                session.transport.abort()
