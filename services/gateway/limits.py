"""How often somebody may call what needs no sign-in: token buckets by key, bounded in number."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from libs.common import errors

MAX_KEYS = 10_000
"""The least recently seen are forgotten beyond it; memory stays bounded whoever calls."""


class RateLimit:
    """`per_minute` calls for each key, all of them at once if they were saved up."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, key: str) -> None:
        """Takes one call from the key's bucket. Raises TooManyRequests, which says when to come again."""
        now = self._monotonic()
        tokens, at = self._buckets.pop(key, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - at) * self._per_minute / 60)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait_s = max(1, math.ceil((1 - tokens) * 60 / self._per_minute))
            raise errors.TooManyRequests(f"too many attempts: try again in {wait_s} s", retry_after_s=wait_s)

    def give_back(self, key: str) -> None:
        """The call that was taken last does not count after all."""
        if key in self._buckets:
            tokens, at = self._buckets[key]
            self._buckets[key] = (min(float(self._per_minute), tokens + 1), at)
