"""Cancellation that arrives, although the libraries' `asyncio.wait_for` swallows one now and then.

On Python 3.11 a task that is cancelled in the moment in which what it waits for is done gets the result instead, and works on as if
nobody had asked it to stop. nats-py dials, subscribes and pings that way. `heeding` is for the call into such a library, `end` for
whoever owns a task in which that may happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")
CANCEL_AGAIN_S = 3.0


async def heeding(work: Awaitable[T]) -> T:
    """The result of `work`; raises CancelledError if this task was cancelled meanwhile, also when `work` did not care."""
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    result = await work
    if task.cancelling() > before:
        raise asyncio.CancelledError
    return result


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel `task` until it is done, and leave its outcome to whoever looks at it."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
