from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.messages import IdentityEvent
from services.identity.audit.floods import MAX_WINDOWS, SINGLE, SINGLE_ALL, WINDOW_S, Floods

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def failure(address: str = "192.0.2.1", account: str = "", reason: str = "wrong_password") -> IdentityEvent:
    return IdentityEvent(
        id=str(uuid4()), at=NOW, action="sign-in", outcome="failure", reason=reason, code=401, by="nobody",
        account=account, provider="local", address=address,
    )  # fmt: skip


def attack(
    floods: Floods, times: int, *, address: str = "192.0.2.1", name: str = "ada", now: float = 0.0, **more
) -> int:
    """How many had a line of their own."""
    return sum(floods.take(failure(address, **more), address, name, now) for _ in range(times))


def test_the_first_few_are_lines_and_the_others_one_count_when_the_minute_is_over():
    floods = Floods()
    assert attack(floods, 1000, account="ada") == SINGLE
    assert floods.due(WINDOW_S - 1) == []
    (told,) = floods.due(WINDOW_S)
    assert (told.count, told.account, told.address, told.reason) == (
        1000 - SINGLE,
        "ada",
        "192.0.2.1",
        "wrong_password",
    )
    assert told.since == NOW
    assert "1 names" in told.note
    assert floods.due(WINDOW_S * 3) == []
    assert attack(floods, SINGLE, now=WINDOW_S + 1) == SINGLE, "the next minute begins afresh"


def test_one_account_guessed_from_everywhere_is_one_count_with_the_number_of_addresses():
    floods = Floods()
    singles = sum(attack(floods, 1, address=f"10.0.{n // 250}.{n % 250}", account="ada") for n in range(5000))
    assert singles == SINGLE
    (told,) = floods.due(WINDOW_S)
    assert (told.count, told.account, told.address) == (5000 - SINGLE, "ada", "")
    assert "1000 or more addresses" in told.note


def test_one_address_that_guesses_names_is_one_count_with_the_number_of_names():
    floods = Floods()
    singles = sum(attack(floods, 1, name=f"user{n}") for n in range(500))
    assert singles == SINGLE
    (told,) = floods.due(WINDOW_S)
    assert (told.count, told.account, told.address) == (500 - SINGLE, "", "192.0.2.1")
    assert f"{500 - SINGLE} names" in told.note


def test_kinds_of_failure_are_counted_apart():
    floods = Floods()
    attack(floods, SINGLE)
    attack(floods, 3, reason="throttled")
    attack(floods, 4, reason="no_such_user")
    assert {(e.reason, e.count) for e in floods.due(WINDOW_S)} == {("throttled", 3), ("no_such_user", 4)}


def test_a_botnet_with_a_name_each_writes_a_bounded_number_of_lines_and_holds_bounded_memory():
    floods, lines = Floods(), 0
    for n in range(3 * MAX_WINDOWS):
        lines += floods.take(failure(f"a{n}"), f"a{n}", f"n{n}", 1.0)
    assert lines == SINGLE_ALL
    assert len(floods._windows) <= MAX_WINDOWS + 1
    (told,) = floods.due(WINDOW_S + 1)
    assert (told.count, told.address, told.account) == (3 * MAX_WINDOWS - SINGLE_ALL, "", "")
    assert not floods._windows


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["a", "b"]), st.floats(0, 30)), max_size=200
    )
)
def test_nothing_is_lost_whatever_comes(steps):
    """Lines and counts together are what came, for each reason."""
    floods, now = Floods(), 0.0
    came, told = Counter(), Counter()
    for address, name, reason, pause in steps:
        now += pause
        came[reason] += 1
        if floods.take(failure(f"a{address}", reason=reason), f"a{address}", f"n{name}", now):
            told[reason] += 1
        if int(now) % 3 == 0:
            for event in floods.due(now):
                told[event.reason] += event.count
    for event in floods.due(now, all_of_them=True):
        told[event.reason] += event.count
    assert told == came
