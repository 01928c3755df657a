"""Groups of groups: a breadth-first walk upwards from one person, by whole levels, bounded in time, depth and number. Pure but for what it asks.

A directory may answer such a question by itself (Active Directory's matching rule in chain), and takes minutes for it where groups are large; a level
of this walk is a search by an index.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from libs.common import errors
from services.identity.providers.base import Group

MAX_DEPTH = 50
BATCH = 50
"""Members asked for in one filter."""
CACHE_S = 120.0
CACHE_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """`dn` is its name as a member of others."""

    dn: str
    group: Group


Ask = Callable[[Sequence[str]], Sequence[FoundGroup]]
"""Members' DNs → the groups that any of them is in. Raises Unavailable."""


@dataclass(slots=True)
class Walked:
    """`why` says in words for the person why groups may be missing; empty = none is."""

    groups: dict[str, Group] = field(default_factory=dict)
    why: str = ""


class ParentCache:
    """What was asked about groups, remembered for some minutes: a company's people share most of theirs. For use from several threads.

    Most groups are in no other; such a one is not asked about again, in whatever company. Nothing is kept of people: who was taken out of a group
    loses it at the next look.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._answers: OrderedDict[tuple[str, ...], tuple[float, tuple[FoundGroup, ...]]] = OrderedDict()

    def get(self, dns: Sequence[str]) -> tuple[FoundGroup, ...] | None:
        """The groups above these, if that was asked; for a single group also whether it is known to be in none."""
        known = self._answers.get(tuple(dns))
        return known[1] if known is not None and self._monotonic() - known[0] < CACHE_S else None

    def put(self, dns: Sequence[str], above: Sequence[FoundGroup]) -> None:
        keys = [(dn,) for dn in dns] if not above else [tuple(dns)]
        for key in keys:
            self._answers[key] = (self._monotonic(), tuple(above))
            self._answers.move_to_end(key)
        while len(self._answers) > CACHE_ENTRIES:
            self._answers.popitem(last=False)


def walk_up(
    direct: Sequence[FoundGroup], ask: Ask, cache: ParentCache, *, limit: int, is_late: Callable[[], bool], nested: bool = True
) -> Walked:  # fmt: skip
    """All groups above `direct` and those themselves, at most `limit`. A cycle is walked once.

    Where time runs out or the directory stops answering, what was found so far counts and `why` tells the rest.
    """
    walked = Walked()
    level = _new(walked, direct)
    for depth in range(MAX_DEPTH + 1):
        if len(walked.groups) > limit:
            walked.why = f"you are in more than {limit} groups: only {limit} of them count"
            walked.groups = dict(sorted(walked.groups.items())[:limit])
            return walked
        if not level or not nested:
            return walked
        if depth == MAX_DEPTH:
            break
        above: list[FoundGroup] = []
        for part in _parts(sorted(g.dn for g in level if cache.get([g.dn]) != ())):
            known = cache.get(part)
            if known is None:
                if is_late():
                    walked.why = (
                        "the directory was too slow: groups that you are in through other groups may be missing"
                    )
                    return walked
                try:
                    known = tuple(ask(part))
                except errors.Unavailable:
                    walked.why = (
                        "the directory stopped answering: groups that you are in through other groups may be missing"
                    )
                    return walked
                cache.put(part, known)
            above += known
        level = _new(walked, above)
    walked.why = f"groups are nested deeper than {MAX_DEPTH} levels: those above do not count"
    return walked


def _new(walked: Walked, groups: Iterable[FoundGroup]) -> list[FoundGroup]:
    fresh = []
    for found in groups:
        if found.group.id not in walked.groups:
            walked.groups[found.group.id] = found.group
            fresh.append(found)
    return fresh


def _parts(dns: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(dns), BATCH):
        yield dns[start : start + BATCH]
