"""The brake on mass deletion: a listing that lacks much of what was there must be confirmed by a second one.

A damaged replica can answer "not found" for what exists; whoever believes it would delete thousands of things downstream.
The informer asks here before it lets go of what a complete listing lacked. Tombstones don't pass here: they are proof.
"""

from __future__ import annotations

ALWAYS_RELEASED = 10
MAX_SHARE = 0.1


class Brake:
    """Holds the keys that one listing lacked until another listing lacks them too."""

    def __init__(self) -> None:
        self._suspects: frozenset[str] = frozenset()

    @property
    def holding(self) -> int:
        """Entries that are kept although the last listing lacked them."""
        return len(self._suspects)

    def release(self, gone: set[str], total: int) -> bool:
        """Whether `gone` of `total` entries may be dropped: they are few, or an earlier listing lacked them as well."""
        few = len(gone) <= ALWAYS_RELEASED or len(gone) <= MAX_SHARE * total
        if few or gone <= self._suspects:
            self._suspects = frozenset()
            return True
        self._suspects = frozenset(gone)
        return False
