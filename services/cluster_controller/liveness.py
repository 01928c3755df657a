"""Who is there: the last heartbeat of each cluster, in memory, by the monotonic clock. Pure: time is an argument.

A cluster that does not speak costs nothing: no timer, no retry, one entry that went from here when it fell silent.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from libs.common.contracts.messages import Heartbeat

SILENCE_S = 25.0
"""Two missed heartbeats (10 s apart, jittered) and a bit: longer than a lost message, shorter than a person's patience."""
WRITE_EVERY_S = 30.0
"""The stored time of the last heartbeat is at most this much older than the real one."""


@dataclass(slots=True)
class Sign:
    """The last heartbeat of a cluster and when it came."""

    heartbeat: Heartbeat
    heard_at: float
    queued_at: float
    """When its status was last put in line for writing."""


class Liveness:
    """Invariant: `alive` holds exactly the clusters heard of within `SILENCE_S` as of the last `expire`, oldest first.

    Nobody is called silent before this process has itself listened for that long: after a start, and after the bus was away.
    """

    def __init__(self, started_at: float) -> None:
        self._alive: OrderedDict[str, Sign] = OrderedDict()
        self._listening_since = started_at

    def hear(self, uid: str, heartbeat: Heartbeat, at: float) -> bool:
        """Take a heartbeat. Returns whether the stored status should be looked at: new, changed, or not written for long."""
        sign = self._alive.get(uid)
        if sign is None:
            self._alive[uid] = Sign(heartbeat, at, at)
            return True
        worth = heartbeat != sign.heartbeat or at - sign.queued_at >= WRITE_EVERY_S
        sign.heartbeat, sign.heard_at = heartbeat, at
        if worth:
            sign.queued_at = at
        self._alive.move_to_end(uid)
        return worth

    def expire(self, at: float) -> list[str]:
        """The clusters that have fallen silent since the last call. Costs what it returns."""
        if at - self._listening_since < SILENCE_S:
            return []
        silent: list[str] = []
        while self._alive:
            uid, sign = next(iter(self._alive.items()))
            if at - sign.heard_at < SILENCE_S:
                break
            del self._alive[uid]
            silent.append(uid)
        return silent

    def resume(self, at: float) -> None:
        """The bus was away until now: nobody could be heard, so nobody is blamed."""
        self._listening_since = at

    def knows(self, at: float) -> bool:
        """Whether silence means anything yet."""
        return at - self._listening_since >= SILENCE_S

    def heartbeat(self, uid: str) -> Heartbeat | None:
        """The last heartbeat of a cluster that is there, else None."""
        sign = self._alive.get(uid)
        return None if sign is None else sign.heartbeat

    def forget(self, uid: str) -> None:
        self._alive.pop(uid, None)

    def __len__(self) -> int:
        return len(self._alive)
