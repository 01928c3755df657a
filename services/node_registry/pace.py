"""How often something may be written: a few times at once, then now and then. Who changes a node's label each second is told each 20 s."""

from __future__ import annotations

from collections.abc import Callable

BURST = 6
EVERY_S = 20.0


class Pace:
    """A bucket of `burst` tokens for each name that was written lately; one that is full again is forgotten."""

    def __init__(self, monotonic: Callable[[], float], burst: int = BURST, every_s: float = EVERY_S) -> None:
        self._monotonic = monotonic
        self._burst = burst
        self._every_s = every_s
        self._full_at: dict[str, float] = {}
        self._swept_at = 0.0

    def take(self, name: str) -> bool:
        """Whether what has this name may be written now; counts as a write then."""
        now = self._monotonic()
        self._sweep(now)
        full_at = max(self._full_at.get(name, 0.0), now)
        if full_at - now > (self._burst - 1) * self._every_s:
            return False
        self._full_at[name] = full_at + self._every_s
        return True

    def _sweep(self, now: float) -> None:
        if now - self._swept_at > self._burst * self._every_s:
            self._swept_at = now
            self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
