"""How many connections an agent should keep ready: a few, more after a burst, slowly fewer again. Pure."""

from __future__ import annotations

PERIOD_S = 60.0
MOST = 64
"""Ready connections after the greatest burst: each costs both sides memory, and the hub a ping now and then."""


class Demand:
    """Invariant: `least` ≤ `target` ≤ max(`least`, MOST).

    `waiting` is what the hub said last about requests that found no connection; it is asked again with each handshake.
    """

    def __init__(self, least: int, cap: int, now: float) -> None:
        self.target = least
        self.waiting = 0
        self._least = least
        self._cap = cap
        self._base = least
        self._lowest = least
        self._period_ends = now + PERIOD_S

    def told(self, waiting: int) -> None:
        """The hub said how many requests wait; as many more at once are to be expected again."""
        self.waiting = max(0, min(waiting, self._cap))
        if self.waiting:
            self.target = max(self.target, min(MOST, self._base + self.waiting))

    def missing(self, resting: int, connected: int, dialling: int) -> int:
        """How many to dial now."""
        return max(0, min(self.target + self.waiting - resting, self._cap - connected) - dialling)

    def look(self, resting: int, now: float) -> None:
        """Once a second or so: what was never needed for a whole period is given up, a quarter at a time."""
        self._lowest = min(self._lowest, resting)
        if now >= self._period_ends:
            used = self.target - self._lowest
            self.target = max(self._least, used, self.target * 3 // 4)
            self._lowest = resting
            self._period_ends = now + PERIOD_S
        # One burst is told of many times, each time with what is left of it: it counts once.
        self._base = self.target
