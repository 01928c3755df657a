"""Slowing down guesses: failed sign-ins per user and address, per user, and per address cost a growing wait, never a lock-out.

Pure but for the clock that is handed in. Used wherever somebody proves something, `handlers.login` first of all. Names that don't exist count alike, so they
can't be told apart.

Replicas count together (`throttle_peers`): each tells the others of every attempt when it begins, and what it has where somebody turns out to have less.
Guarantee: over any number of replicas as many guesses are answered as over one. Attempts that begin at several within the milliseconds that a message takes
are all looked at; but what one of them found out is told only if it is among those that one replica would have let in (`guess`), and all of them count. Beyond that
one guess is answered at each replica that is new or lost messages: it hears what the others have in answer to the first that it tells. A replica that the bus
does not reach counts alone, and is reached by no sign-in either. When all stop, all is forgotten.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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


@dataclass(slots=True)
class _Open:
    """An attempt under way: the how-manieth failure it was of each count that decides about it, and how many more came before it at others."""

    places: dict[tuple[str, str], int]
    before: Counter[tuple[str, str]]


class Throttle:
    """An attempt counts as failed from its beginning, so that many at once are not many free tries; `succeeded` takes it back.

    `tell` takes what the other replicas must hear, and never waits; theirs is given to `hear`. `me` tells the replicas apart.
    """

    def __init__(
        self, monotonic: Callable[[], float], tell: Callable[[What, Stands], None] = lambda _what, _counts: None, me: str = "",
    ) -> None:  # fmt: skip
        self._me = me
        self._open: list[_Open] = []
        self._monotonic = monotonic
        self._tell = tell
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()

    @contextmanager
    def guess(self, user: str, address: str, *, known: bool = False) -> Iterator[None]:
        """Around the work that says whether it is right; an error means that it is not. As `begin` and `succeeded`.

        Raises TooManyRequests afterwards, too, whatever was found out: when attempts at other replicas turn out to have come before.
        """
        attempt = self._begin(user, address, known=known)
        self._open.append(attempt)
        try:
            yield
        except errors.HerdsmanError:
            self._check_place(attempt)
            raise
        finally:
            self._open.remove(attempt)
        self._check_place(attempt)
        self.succeeded(user, address, known=known)

    def begin(self, user: str, address: str, *, known: bool = False) -> None:
        """Count an attempt. Raises TooManyRequests with the seconds to wait; that attempt is then not counted.

        `known`: this user signed in from this address before. Then only what failed for this user from there counts, so that no stranger
        elsewhere, however many they are, keeps the person out.
        """
        self._begin(user, address, known=known)

    def _begin(self, user: str, address: str, *, known: bool) -> _Open:
        now = self._monotonic()
        asked = _keys(user, address)
        deciding = [key for key in asked if not known or key[0] == "pair"]
        _check_wait(max(self._left_s(key, now) for key in deciding))
        counted = {key: self._count(key, now) for key in asked if not known or key[0] != "user"}
        self._tell("began", [(*key, failures) for key, failures in counted.items()])
        return _Open({key: counted[key] for key in deciding}, Counter())

    def _check_place(self, attempt: _Open) -> None:
        """Raises TooManyRequests when those that came before it elsewhere had not left it a place."""
        waits = (LIMITS[key[0]].wait_s(attempt.places[key] - 1 + more) for key, more in attempt.before.items())
        _check_wait(max(waits, default=0.0))

    def succeeded(self, user: str, address: str, *, known: bool = False) -> None:
        """The attempt was right: this user from this address starts afresh, and it was no failure of the others. `known` as it began."""
        counted = [key for key in _keys(user, address) if not known or key[0] != "user"]
        self._tell("right", [(kind, key, self._take_back((kind, key))) for kind, key in counted])

    def hear(self, what: What, counts: Stands, teller: str = "") -> None:
        """What another replica told."""
        now = self._monotonic()
        more = []
        for kind, key, theirs in counts:
            if kind not in LIMITS:
                continue
            if what == "right":
                self._take_back((kind, key))
            elif what == "began":
                for attempt in self._open:
                    place = attempt.places.get((kind, key))
                    # All replicas agree on who came first: the one with fewer before it, of equals the one with the smaller id.
                    if place is not None and (theirs, teller) < (place, self._me):
                        attempt.before[kind, key] += 1
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

    def _left_s(self, key: tuple[str, str], now: float) -> float:
        count = self._counts.get(key)
        if count is None or now - count.last > FORGET_AFTER_S:
            return 0.0
        return count.last + LIMITS[key[0]].wait_s(count.failures) - now


def _check_wait(wait_s: float) -> None:
    if wait_s > 0:
        seconds = math.ceil(wait_s)
        raise errors.TooManyRequests(f"too many failed sign-ins: try again in {seconds} s", retry_after_s=seconds)


def _keys(user: str, address: str) -> tuple[tuple[str, str], ...]:
    """Hashes: what somebody typed as a name may be a password, and goes to the other replicas."""
    user = user.casefold()
    keys = (("user", _hash(user)), ("pair", _hash(f"{user}\n{address}")))
    return (*keys, ("address", _hash(address))) if address else keys


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
