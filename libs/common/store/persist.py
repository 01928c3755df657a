"""Trying until it is certain: the retry loop of all store operations, and what it says when the budget is spent.

Three outcomes of one try are told apart: refused for certain (try again or not), and unknown. After an unknown one the
operation itself finds out on its next try whether it had been done; `persist` only remembers that it must.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from libs.common import errors
from libs.common.bus.jetstream_api import Refused

T = TypeVar("T")
BUDGET_S = 15.0
"""An election of the store's leader takes 5 to 9 s."""


class OutcomeUnknown(errors.Timeout):
    """It cannot be found out any more whether the write happened: somebody else wrote since."""


async def persist(attempt: Callable[[bool], Awaitable[T]], *, budget_s: float = BUDGET_S) -> T:
    """The result of `attempt(lost)`, tried until it is certain; `lost` = an earlier try's answer was lost.

    Raises what `attempt` raises for certain; Unavailable when nothing was done in `budget_s`; Timeout when that is unknown.
    """
    deadline = time.monotonic() + budget_s
    lost = False
    pause_s = 0.02
    while True:
        try:
            return await attempt(lost)
        except OutcomeUnknown:
            raise
        except errors.Timeout as exc:
            lost = True
            failure: errors.HerdsmanError = exc
        except errors.Unavailable as exc:
            failure = exc
            if isinstance(exc, Refused) and not exc.again:
                raise _final(exc, lost) from exc
        pause_s = min(pause_s * 2, 1.0) * random.uniform(0.5, 1.0)
        if time.monotonic() + pause_s >= deadline:
            raise _final(failure, lost) from failure
        await asyncio.sleep(pause_s)


def _final(failure: errors.HerdsmanError, lost: bool) -> errors.HerdsmanError:
    if lost:
        return errors.Timeout(f"the store gave no certain answer, it may have been done or not: {failure.message}")
    return errors.Unavailable(failure.message)
