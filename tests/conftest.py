"""What all hermetic tests share: a fixed clock, and a check that no task is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.watchdog import pytest_configure, pytest_runtest_logreport, pytest_runtest_teardown  # noqa: F401 - hooks


class Clock:
    """A clock that a test moves: `clock()` is now, `clock.forward(seconds)` moves it."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """A leftover task fails the test: it would run on into somebody else's."""
    before = asyncio.all_tasks()
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    left = [t for t in asyncio.all_tasks() - before if not t.done() and t is not asyncio.current_task()]
    assert not left, f"tasks left behind: {[t.get_name() for t in left]}"


@pytest.fixture
def eventually() -> Callable[..., object]:
    """`await eventually(lambda: condition)`: polls a condition with a deadline of real time."""

    async def wait(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, "the condition did not come true in time"
            await asyncio.sleep(0.01)

    return wait
