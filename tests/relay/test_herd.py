"""Many agents after a restart of their hub: how their dials are spread. The clock is virtual: no time passes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from libs.common import errors
from libs.common.relay import dial
from libs.common.relay.dial import ReverseDialer
from libs.common.relay.handshake import TunnelIdentity
from libs.common.relay.outbound import Hub
from libs.common.relay.session import Session

AGENTS = 200


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps to the next timer instead of waiting for it."""

    def __init__(self):
        super().__init__()
        self.offset = 0.0

    def time(self):
        return super().time() + self.offset

    def _run_once(self):
        if not self._ready and self._scheduled:
            self.offset += max(0.0, self._scheduled[0]._when - self.time())
        super()._run_once()


def test_dials_of_many_agents_are_spread_and_never_end(monkeypatch):
    """The hub is away for two minutes; every agent that was connected tries on, one probe at a time, and no second holds them all."""
    random.seed(7)
    loop = VirtualLoop()
    dials: list[tuple[float, int]] = []

    async def refused(_hub, identity, _carriers):
        dials.append((loop.time(), int(identity.instance)))
        raise errors.Unavailable("the hub cannot be reached")

    monkeypatch.setattr(dial, "reach", refused)

    async def simulate():
        dialers = []
        for number in range(AGENTS):
            identity = TunnelIdentity("uid", "U", lambda data: data, str(number))
            dialer = ReverseDialer(Hub("https://h"), identity, lambda: None, lambda: b"", idle=4)
            last = Session(dialer._engine)
            last.requests = 1
            dialer._on_closed(last)  # the last of its connections went with the hub
            dialers.append(asyncio.ensure_future(dialer.run()))
        await asyncio.sleep(120)
        for task in dialers:
            task.cancel()
        await asyncio.gather(*dialers, return_exceptions=True)

    started = loop.time()
    try:
        loop.run_until_complete(simulate())
    finally:
        loop.close()
    per_agent = Counter(number for _, number in dials)
    assert len(per_agent) == AGENTS
    assert min(per_agent.values()) >= 8
    assert max(per_agent.values()) <= 60
    per_second = Counter(int(at - started) for at, _ in dials)
    assert per_second[0] < AGENTS * 0.9
    assert max(per_second[second] for second in range(10, 120)) < AGENTS * 0.35
    # Until the end they all go on trying.
    assert {number for at, number in dials if at - started > 90} == set(range(AGENTS))
