"""A request whose route has to wait (`decision.Later`): it stands where its exchange will stand, and what the client sends meanwhile is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libs.common.relay.decision import Later
from libs.common.relay.head import RequestHead

if TYPE_CHECKING:
    from libs.common.relay.session import Session


class Waiting:
    """Invariant: it ends once, with a decision that the session goes on with, or because the client is gone."""

    __slots__ = ("_session", "_task", "finished", "request", "request_done")

    def __init__(self, session: Session, request: RequestHead, later: Later) -> None:
        self.request = request
        self.request_done = True
        """Nothing that comes is looked at before it is decided what becomes of it."""
        self.finished = False
        self._session = session
        self._task = session.engine.spawn(self._wait(later), "relay-waiting")

    async def _wait(self, later: Later) -> None:
        decision = await self._session.engine.decide_later(later, self.request, self._session)
        if not self.finished:
            self.finished = True
            self._session.decided(self.request, decision)

    def request_data(self, data: bytes) -> bytes:
        return data

    def client_gone(self) -> None:
        self.finished = True
        self._task.cancel()

    def client_writable(self, writable: bool) -> None:
        """Nothing is written meanwhile."""

    def timed_out(self, now: float) -> None:
        """The wait has its own limit."""
