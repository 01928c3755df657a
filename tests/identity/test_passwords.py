from __future__ import annotations

import asyncio
import threading
import time

import pytest

from libs.common import errors
from libs.common.resources.providers import LocalSettings
from services.identity.passwords import MAX_WAITING, Passwords, check_policy

GOOD = "correct horse battery"


@pytest.fixture
async def passwords():
    made = Passwords(memory_kib=64, passes=1)
    yield made
    await made.aclose()


async def test_a_password_matches_its_hash_and_no_other(passwords):
    stored = await passwords.hash(GOOD)
    assert stored.startswith("$argon2id$")
    assert await passwords.verify(stored, GOOD)
    assert not await passwords.verify(stored, GOOD + "x")


async def test_nobody_has_a_password(passwords):
    assert not await passwords.verify("", GOOD)
    assert not await passwords.verify("", "the hash that is checked where there is no user or no password")


async def test_a_sign_in_for_nobody_costs_as_much_as_for_somebody():
    real = Passwords(memory_kib=8 * 1024, passes=4)
    try:
        stored = await real.hash(GOOD)
        spent = {}
        for name, candidate in (("somebody", stored), ("nobody", "")):
            runs = []
            for _ in range(7):
                began = time.perf_counter()
                await real.verify(candidate, "wrong password!!")
                runs.append(time.perf_counter() - began)
            spent[name] = min(runs)
        assert 0.5 < spent["nobody"] / spent["somebody"] < 2
    finally:
        await real.aclose()


async def test_an_unreadable_hash_is_told_to_operators_not_to_guessers(passwords):
    with pytest.raises(errors.Internal, match="set that user's password again"):
        await passwords.verify("$argon2id$rubbish", GOOD)


async def test_too_many_at_once_are_refused_and_the_rest_served(passwords, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(passwords, "_verify", lambda *_: gate.wait(10))
    tries = [asyncio.create_task(passwords.verify("", "x")) for _ in range(MAX_WAITING + 10)]
    await asyncio.sleep(0.05)
    refused = [t for t in tries if t.done()]
    assert len(refused) == 8
    assert all(isinstance(t.exception(), errors.Unavailable) for t in refused)
    gate.set()
    await asyncio.gather(*tries, return_exceptions=True)


async def test_weaker_parameters_are_noticed(passwords):
    stronger = Passwords(memory_kib=128, passes=1)
    stored = await passwords.hash(GOOD)
    assert not passwords.is_outdated(stored)
    assert stronger.is_outdated(stored)
    await stronger.aclose()


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("short", "at least 12"),
        ("a" * 30, "different characters"),
        ("Administrator", "the user name"),
        ("x" * 1025, "at most"),
    ],
)
def test_bad_passwords_are_refused_with_the_reason(password, why):
    with pytest.raises(errors.Invalid, match=why):
        check_policy(password, "administrator")


def test_a_good_password_passes():
    check_policy(GOOD, "ada")


@pytest.mark.parametrize(
    "password",
    [
        "qwerty123456", "Qwerty123456", "password2026!", "PASSWORD-2026", "123password456", "letmeinletmein", "dragondragondragon99",
        "\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44123456",
    ],
)  # fmt: skip
def test_a_common_password_is_refused_however_it_is_dressed_up(password):
    with pytest.raises(errors.Invalid, match="several words that do not belong together"):
        check_policy(password, "ada")


@pytest.mark.parametrize(
    "password", ["password manager of mine", "dragon tea cupboard", "8301-5527-0946-1183", "Zk3vQ0aXw9LrB2nTfYcE"]
)
def test_a_common_word_among_others_is_no_common_password(password):
    check_policy(password, "ada")


def test_the_local_provider_says_how_short_a_password_may_be():
    longer, shorter = LocalSettings(min_password_length=30), LocalSettings(min_password_length=8)
    with pytest.raises(errors.Invalid, match="at least 30 characters"):
        check_policy(GOOD, "ada", longer)
    check_policy("tea 4 us", "ada", shorter)
    with pytest.raises(errors.Invalid, match="at least 12 characters"):
        check_policy("tea 4 us", "ada")
