"""Lets the throttles of all replicas count together: what one tells, the others hear, over plain messages that nobody stores.

A message that is lost weakens a limit by one attempt until the next message about the same name or address. Only identity may speak and hear on this subject.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from uuid import uuid4

from libs.common import errors
from libs.common.bus.base import Bus, Message
from libs.common.contracts import subjects
from libs.common.contracts.messages import SignInCount, SignInCounts
from libs.common.observe import log
from services.identity.throttle import Stands, Throttle, What

MAX_WAITING = 5000
"""Messages that wait to be sent; beyond that the oldest is forgotten."""


class ThrottlePeers:
    """Makes throttles by name; the one of the same name in another replica is its peer. `run` and `hear` must be going."""

    def __init__(self, bus: Bus, monotonic: Callable[[], float]) -> None:
        self._bus = bus
        self._monotonic = monotonic
        self._me = str(uuid4())
        self._throttles: dict[str, Throttle] = {}
        self._waiting: deque[SignInCounts] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()

    def throttle(self, name: str) -> Throttle:
        def tell(what: What, counts: Stands) -> None:
            told = [SignInCount(kind=kind, key=key, failures=failures) for kind, key, failures in counts]
            self._waiting.append(SignInCounts(teller=self._me, throttle=name, what=what, counts=told))
            self._wake.set()

        made = self._throttles[name] = Throttle(self._monotonic, tell, self._me)
        return made

    async def run(self) -> None:
        """Send what was told, for ever."""
        failing = False
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                try:
                    await self._bus.publish(subjects.sign_in_counts(), self._waiting.popleft())
                except errors.HerdsmanError as exc:
                    if not failing:
                        log.get("identity").warning("sign_in_counts_not_told", error=exc.message)
                    failing = True
                else:
                    failing = False

    async def hear(self, told: SignInCounts, _message: Message) -> None:
        throttle = self._throttles.get(told.throttle)
        if told.teller != self._me and throttle is not None:
            throttle.hear(told.what, [(count.kind, count.key, count.failures) for count in told.counts], told.teller)
