"""Keeps a flood of failed sign-ins from flooding the log: the first few of a minute from an address, and at an account, are lines of their own; the
others are counted and told when the minute is over. Pure but for the times that are handed in.

Bound: `SINGLE_ALL` lines a minute and process, and for each address or account that had `SINGLE` of them (so some sixty at most) one more for each kind
of failure; what has no line of its own is in a count, always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4

from libs.common.contracts.messages import IdentityEvent

WINDOW_S = 60.0
SINGLE = 10
SINGLE_ALL = 300
MAX_WINDOWS = 10_000
MAX_OTHERS = 1000
"""Up to so many different names (or addresses) are told apart in a count."""
_ALL = ("all", "")
_Kind = tuple[str, str, str, int]


@dataclass(slots=True)
class _Count:
    """Of one kind of failure: an example, how often, and how many different names or addresses it was about."""

    example: IdentityEvent
    last: datetime
    count: int = 0
    others: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class _Window:
    ends: float
    singles: int = 0
    counts: dict[_Kind, _Count] = field(default_factory=dict)


class Floods:
    """`take` for each failure, `due` now and again."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], _Window] = {}

    def take(self, event: IdentityEvent, network: str, typed: str, now: float) -> bool:
        """Whether this failure is a line of its own; else it was counted. `network` stands for the address, `typed` for the account, existing or not."""
        all_ = self._window(_ALL, now)
        keys = [(kind, value) for kind, value in (("address", network), ("account", typed)) if value]
        windows = [(key, window) for key in keys if (window := self._window(key, now)) is not None]
        full = next((pair for pair in windows if pair[1].singles >= SINGLE), None)
        assert all_ is not None
        if full is None and (all_.singles >= SINGLE_ALL or len(windows) < len(keys)):
            full = (_ALL, all_)
        if full is None:
            for window in (all_, *(window for _, window in windows)):
                window.singles += 1
            return True
        (kind, _), window = full
        what = (event.action, event.reason, event.provider, event.code)
        counted = window.counts.setdefault(what, _Count(event, event.at))
        counted.count += 1
        counted.last = event.at
        if len(counted.others) < MAX_OTHERS:
            counted.others.add(
                hashlib.blake2b((network if kind == "account" else typed).encode(), digest_size=8).digest()
            )
        return False

    def due(self, now: float, *, all_of_them: bool = False) -> list[IdentityEvent]:
        """The counts of minutes that are over."""
        over = [key for key, window in self._windows.items() if all_of_them or now >= window.ends]
        return [event for key in over for event in _told(key, self._windows.pop(key))]

    def _window(self, key: tuple[str, str], now: float) -> _Window | None:
        """That of the moment; one that is over and has counts stays until `due` took them, and counts on. None = there are too many."""
        window = self._windows.get(key)
        if window is not None and now >= window.ends and not window.counts:
            window = None
        if window is None:
            if key != _ALL and key not in self._windows and len(self._windows) >= MAX_WINDOWS:
                return None
            window = self._windows[key] = _Window(now + WINDOW_S)
        return window


def _told(key: tuple[str, str], window: _Window) -> Iterator[IdentityEvent]:
    kind = key[0]
    for counted in window.counts.values():
        example, others = counted.example, len(counted.others)
        many = f"{others}{' or more' if others >= MAX_OTHERS else ''}"
        about = {
            "address": f"{many} names",
            "account": f"{many} addresses",
            "all": f"{many} names from many addresses",
        }[kind]
        yield example.model_copy(update={
            "id": str(uuid4()), "at": counted.last, "since": example.at, "count": counted.count, "note": f"{counted.count} alike, of {about}",
            "address": example.address if kind == "address" else "", "agent": example.agent if kind == "address" else "",
            "account": example.account if kind == "account" or others == 1 else "", "resource": "", "name": "",
        })  # fmt: skip
