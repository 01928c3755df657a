"""Slowing down guesses: failed sign-ins per user and address, per user, and per address cost a growing wait, never a lock-out.

Pure but for the clock that is handed in. Kept in memory: replicas count apart, which multiplies an attacker's rate by their number, and
a restart forgets. Used by `handlers.login` and `handlers.change_password`. Names that don't exist count alike, so they can't be told apart.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from libs.common import errors

FORGET_AFTER_S = 3600.0
MAX_KEYS = 20_000
"""Beyond that the key that was quiet longest is forgotten: memory stays bounded under a flood of made-up names."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`free` failures cost nothing; each further one doubles the wait from one second up to `longest_s`."""

    free: int
    longest_s: float

    def wait_s(self, failures: int) -> float:
        over = failures - self.free
        return 0.0 if over <= 0 else min(self.longest_s, 2.0 ** min(over - 1, 30))


# A person at one desk gets five tries, then slows down. Others' guesses at that name from elsewhere must not keep the person out, so
# the wait per name alone stays short, and does not hold for an address from which the person came before; an address may be an office of hundreds behind one NAT.
LIMITS = {"pair": Limit(5, 900.0), "user": Limit(30, 15.0), "address": Limit(60, 60.0)}


@dataclass(slots=True)
class _Count:
    failures: int
    last: float


class Throttle:
    """An attempt counts as failed from its beginning, so that many at once are not many free tries; `succeeded` takes it back."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()

    def begin(self, user: str, address: str, *, known: bool = False) -> None:
        """Count an attempt. Raises TooManyRequests with the seconds to wait; that attempt is then not counted.

        `known`: this user signed in from this address before. Then only what failed for this user from there counts, so that no stranger
        elsewhere, however many they are, keeps the person out.
        """
        now = self._monotonic()
        asked = _keys(user, address)
        wait_s = max(self._left_s(kind, key, now) for kind, key in asked if not known or kind == "pair")
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise errors.TooManyRequests(
                f"too many failed sign-ins: try again in {seconds} s", retry_after_s=seconds
            )  # fmt: skip
        for key in asked:
            if known and key[0] == "user":
                continue
            count = self._counts.pop(key, None)
            fresh = count is None or now - count.last > FORGET_AFTER_S
            self._counts[key] = _Count(1, now) if count is None or fresh else _Count(count.failures + 1, now)
        while len(self._counts) > MAX_KEYS:
            self._counts.popitem(last=False)

    def succeeded(self, user: str, address: str, *, known: bool = False) -> None:
        """The attempt was right: this user from this address starts afresh, and it was no failure of the others. `known` as it began."""
        for key in _keys(user, address):
            if known and key[0] == "user":
                continue
            count = self._counts.get(key)
            if count is None:
                continue
            count.failures -= 1
            if key[0] == "pair" or count.failures <= 0:
                del self._counts[key]

    def _left_s(self, kind: str, key: str, now: float) -> float:
        count = self._counts.get((kind, key))
        if count is None or now - count.last > FORGET_AFTER_S:
            return 0.0
        return count.last + LIMITS[kind].wait_s(count.failures) - now


def _keys(user: str, address: str) -> tuple[tuple[str, str], ...]:
    user = user.casefold()
    keys = (("user", user), ("pair", f"{user}\n{address}"))
    return (*keys, ("address", address)) if address else keys
