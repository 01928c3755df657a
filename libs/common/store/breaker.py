"""The breaker of a store that reads but does not take writes, as a server with a full disk does: it never answers a write again.

Without it every writer would wait out its whole budget, for as long as the disk is full. With it the first finds out, the
others are told at once, and one in `PROBE_EVERY_S` is let through to see whether writes are taken again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from libs.common import errors

PROBE_EVERY_S = 5.0


class WriteBreaker:
    """Closed: writes pass. Open: writes are refused for certain, but for a probe now and then."""

    def __init__(self, bucket: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._bucket = bucket
        self._monotonic = monotonic
        self._probe_at: float | None = None
        self._log = structlog.get_logger().bind(logger="store", bucket=bucket)

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    def check(self) -> None:
        """Raises Unavailable when a write would only wait for nothing."""
        if self._probe_at is None:
            return
        moment = self._monotonic()
        if moment < self._probe_at:
            raise errors.Unavailable(
                f'the store takes no writes to bucket "{self._bucket}": its disk is probably full; '
                'make room, and it goes on by itself under "herdsman up"; elsewhere restart nats-server'
            )
        self._probe_at = moment + PROBE_EVERY_S

    def open(self) -> None:
        """A write was not answered in all its time, and reads are."""
        if self._probe_at is None:
            self._log.error(
                "writes_not_taken", advice="the store's disk is probably full: make room, restart nats-server"
            )
        self._probe_at = self._monotonic() + PROBE_EVERY_S

    def close(self) -> None:
        """A write was answered."""
        if self._probe_at is not None:
            self._log.info("writes_taken_again")
        self._probe_at = None
