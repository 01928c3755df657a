from __future__ import annotations

import pytest

from libs.common import errors
from services.identity.throttle import FORGET_AFTER_S, LIMITS, MAX_KEYS, Throttle


class Timer:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def throttle(timer: Timer) -> Throttle:
    return Throttle(timer)


def fail(throttle: Throttle, user: str, address: str, times: int) -> None:
    for _ in range(times):
        throttle.begin(user, address)


def test_the_wait_doubles_and_is_never_for_ever(throttle, timer):
    fail(throttle, "ada", "10.0.0.1", 5)
    waits = []
    for _ in range(20):
        throttle.begin("ada", "10.0.0.1")
        with pytest.raises(errors.TooManyRequests) as refused:
            throttle.begin("ada", "10.0.0.1")
        waits.append(refused.value.retry_after_s)
        timer.seconds += refused.value.retry_after_s
    assert waits[:4] == [1, 2, 4, 8]
    assert max(waits) == LIMITS["pair"].longest_s
    throttle.begin("ada", "10.0.0.1")


def test_a_right_password_starts_afresh(throttle):
    fail(throttle, "ada", "10.0.0.1", 5)
    throttle.begin("ada", "10.0.0.1")
    throttle.succeeded("ada", "10.0.0.1")
    fail(throttle, "ada", "10.0.0.1", 5)


def test_guesses_from_elsewhere_keep_nobody_out_for_long(throttle, timer):
    for number in range(200):
        try:
            throttle.begin("ada", f"10.0.{number}.1")
        except errors.TooManyRequests:
            timer.seconds += 1
    with pytest.raises(errors.TooManyRequests) as refused:
        fail(throttle, "ada", "192.0.2.7", 2)
    assert refused.value.retry_after_s <= LIMITS["user"].longest_s


def test_no_stranger_elsewhere_slows_down_who_came_from_there_before(throttle, timer):
    """A thousand guesses, one after the other and never giving up: the person gets in between any two of them."""
    for number in range(1000):
        try:
            throttle.begin("ada", f"10.0.{number % 250}.1")
        except errors.TooManyRequests:
            timer.seconds += 0.01
        throttle.begin("ada", "192.0.2.7", known=True)
        throttle.succeeded("ada", "192.0.2.7", known=True)
    with pytest.raises(errors.TooManyRequests):
        throttle.begin("ada", "192.0.2.8")


def test_others_in_the_same_office_slow_down_nobody_who_came_from_there_before(throttle):
    for number in range(LIMITS["address"].free + 1):
        throttle.begin(f"user{number}", "192.0.2.7")
    with pytest.raises(errors.TooManyRequests):
        throttle.begin("eve", "192.0.2.7")
    throttle.begin("ada", "192.0.2.7", known=True)


def test_guesses_from_a_known_address_are_slowed_down_all_the_same(throttle):
    for _ in range(LIMITS["pair"].free + 1):
        throttle.begin("ada", "192.0.2.7", known=True)
    with pytest.raises(errors.TooManyRequests):
        throttle.begin("ada", "192.0.2.7", known=True)
    throttle.begin("ada", "192.0.2.8")


def test_one_address_guessing_many_names_is_slowed(throttle):
    for number in range(LIMITS["address"].free + 1):
        throttle.begin(f"user{number}", "10.0.0.1")
    with pytest.raises(errors.TooManyRequests):
        throttle.begin("somebody-new", "10.0.0.1")


def test_many_attempts_at_once_are_not_many_free_tries(throttle):
    """None has ended yet, and still only the free ones begin."""
    fail(throttle, "ada", "10.0.0.1", LIMITS["pair"].free + 1)
    with pytest.raises(errors.TooManyRequests):
        throttle.begin("ada", "10.0.0.1")


def test_case_does_not_make_another_name(throttle):
    fail(throttle, "ada", "10.0.0.1", 6)
    with pytest.raises(errors.TooManyRequests):
        throttle.begin("ADA", "10.0.0.1")


def test_old_failures_are_forgotten_and_memory_is_bounded(throttle, timer):
    fail(throttle, "ada", "10.0.0.1", 6)
    timer.seconds += FORGET_AFTER_S + 1
    fail(throttle, "ada", "10.0.0.1", 5)
    for number in range(MAX_KEYS):
        throttle.begin(f"u{number}", "")
    assert len(throttle._counts) <= MAX_KEYS


def test_the_message_says_nothing_about_the_user(throttle):
    fail(throttle, "nobody", "10.0.0.1", 6)
    with pytest.raises(errors.TooManyRequests) as refused:
        throttle.begin("nobody", "10.0.0.1")
    assert "nobody" not in refused.value.message
