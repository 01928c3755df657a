"""Slowing down guesses: failed sign-ins per user and address, per user, and per address cost a growing wait, never a lock-out.

Pure but for the clock that is handed in. Used by `handlers.login` and `handlers.change_password`. Names that don't exist count alike, so they
can't be told apart.

Replicas count together (`throttle_peers`): each tells the others of every attempt when it begins, and what it has where somebody turns out to have less.
Guarantee: over any number of replicas as many guesses are let in as over one, and beyond that at most (a) for each other replica the attempts that begin there
within the time that a message takes, some milliseconds, and (b) one attempt at each replica that is new or lost messages: it hears what the others have
with the answer to the first that it tells. A replica that the bus does not reach counts alone, and is reached by no sign-in either. When all stop, all is
forgotten.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from libs.common import errors

FORGET_AFTER_S = 3600.0
MAX_KEYS = 20_000
"""Beyond that the key that was quiet longest is forgotten: memory stays bounded under a flood of made-up names."""
What = Literal["began", "right", "stand"]
Stands = Sequence[tuple[str, str, int]]
"""(kind, key, failures) of each count."""


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
    """An attempt counts as failed from its beginning, so that many at once are not many free tries; `succeeded` takes it back.

    `tell` takes what the other replicas must hear, and never waits; theirs is given to `hear`.
    """

    def __init__(self, monotonic: Callable[[], float], tell: Callable[[What, Stands], None] = lambda _what, _counts: None) -> None:  # fmt: skip
        self._monotonic = monotonic
        self._tell = tell
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
        counted = [key for key in asked if not known or key[0] != "user"]
        self._tell("began", [(kind, key, self._count((kind, key), now)) for kind, key in counted])

    def succeeded(self, user: str, address: str, *, known: bool = False) -> None:
        """The attempt was right: this user from this address starts afresh, and it was no failure of the others. `known` as it began."""
        counted = [key for key in _keys(user, address) if not known or key[0] != "user"]
        self._tell("right", [(kind, key, self._take_back((kind, key))) for kind, key in counted])

    def hear(self, what: What, counts: Stands) -> None:
        """What another replica told."""
        now = self._monotonic()
        more = []
        for kind, key, theirs in counts:
            if kind not in LIMITS:
                continue
            if what == "right":
                self._take_back((kind, key))
            elif what == "began":
                mine = self._count((kind, key), now)
                if mine < theirs:
                    self._counts[kind, key].failures = theirs
                elif mine > theirs:
                    more.append((kind, key, mine))
            elif (count := self._counts.get((kind, key))) is not None:
                # Only what counts here at all: it may have been right a moment ago, and starts afresh then.
                count.failures = max(count.failures, theirs)
        if more:
            self._tell("stand", more)

    def _count(self, key: tuple[str, str], now: float) -> int:
        """One failure more; how many there are."""
        count = self._counts.pop(key, None)
        fresh = count is None or now - count.last > FORGET_AFTER_S
        failures = 1 if count is None or fresh else count.failures + 1
        self._counts[key] = _Count(failures, now)
        while len(self._counts) > MAX_KEYS:
            self._counts.popitem(last=False)
        return failures

    def _take_back(self, key: tuple[str, str]) -> int:
        count = self._counts.get(key)
        if count is None:
            return 0
        count.failures -= 1
        if key[0] == "pair" or count.failures <= 0:
            del self._counts[key]
            return 0
        return count.failures

    def _left_s(self, kind: str, key: str, now: float) -> float:
        count = self._counts.get((kind, key))
        if count is None or now - count.last > FORGET_AFTER_S:
            return 0.0
        return count.last + LIMITS[kind].wait_s(count.failures) - now


def _keys(user: str, address: str) -> tuple[tuple[str, str], ...]:
    """Hashes: what somebody typed as a name may be a password, and goes to the other replicas."""
    user = user.casefold()
    keys = (("user", _hash(user)), ("pair", _hash(f"{user}\n{address}")))
    return (*keys, ("address", _hash(address))) if address else keys


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
