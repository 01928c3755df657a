"""Clients that vanished while something was on its way to them: the kernel would try for a quarter of an hour before it said so.

A resting connection is the keep-alive's business (`sockets.tune`); this is for streams. Used by `server.Engine`.
"""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING

import structlog

from libs.common.relay import sockets

if TYPE_CHECKING:
    from libs.common.relay.session import Session

VANISHED_S = 30.0
"""As long as the keep-alive gives a client that is away for a moment."""
AT_A_TIME = 400
"""Sessions looked at in one tick: the look asks the kernel, some microseconds each."""
log = structlog.get_logger(component="relay")


class VanishedClients:
    """Swept with the engine's deadlines: a part of its sessions at each tick, all of them in turn."""

    def __init__(self, sessions: Set[Session]) -> None:
        self._sessions = sessions
        self._left: list[Session] = []
        self.deadline = 0.0

    def expire(self, now: float) -> None:
        """Look at the next sessions; at all again when every one had its turn, not sooner than a second later."""
        self.deadline = now + 1.0
        if not self._left:
            self._left = list(self._sessions)
        looked, self._left = self._left[:AT_A_TIME], self._left[AT_A_TIME:]
        for session in looked:
            if session.closed or session.idle:
                continue
            unheard_s = sockets.unheard_for_s(session.transport)
            if unheard_s >= VANISHED_S:
                log.info("client_vanished", peer=session.peer, unheard_s=round(unheard_s, 1))
                session.transport.abort()
