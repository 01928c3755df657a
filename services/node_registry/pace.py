"""How often one node may be written because it changed: a few times at once, then now and then. Who changes a label each second is told each 20 s."""

from __future__ import annotations

from collections.abc import Callable

BURST = 6
EVERY_S = 20.0


class Pace:
    """A bucket of tokens for each node that changed lately; one that is full again is forgotten."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._full_at: dict[str, float] = {}
        self._swept_at = 0.0

    def take(self, name: str) -> bool:
        """Whether the node may be written now; counts as a write then."""
        now = self._monotonic()
        self._sweep(now)
        full_at = max(self._full_at.get(name, 0.0), now)
        if full_at - now > (BURST - 1) * EVERY_S:
            return False
        self._full_at[name] = full_at + EVERY_S
        return True

    def _sweep(self, now: float) -> None:
        if now - self._swept_at > BURST * EVERY_S:
            self._swept_at = now
            self._full_at = {name: full_at for name, full_at in self._full_at.items() if full_at > now}
