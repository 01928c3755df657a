"""Doing again what somebody else's write came between."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from libs.common import errors

T = TypeVar("T")
TRIES = 8


async def again(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, tried again while it raises Conflict; the last Conflict when others write all the time."""
    for attempt in range(1, TRIES + 1):
        try:
            return await work()
        except errors.Conflict:
            if attempt == TRIES:
                raise
        await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
    raise AssertionError("the loop above returns or raises")
