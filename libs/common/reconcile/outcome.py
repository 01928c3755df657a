"""What one reconcile of one key says about the key's future. An exception says: again, with backoff."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing to do until something changes."""


@dataclass(frozen=True, slots=True)
class After:
    """Look again after so many seconds, also if nothing changes; for what depends on time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Terminal:
    """Trying again cannot help until somebody changes something; `reason` is logged."""

    reason: str


Outcome = Done | After | Terminal
DONE = Done()
