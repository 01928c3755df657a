"""Two processes of identity on one bus: they let in as many guesses as one does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from integration.harness.hub import PASSWORD, Hub, eventually
from integration.identity.replica import bus_as, is_let_guess, second_identity, sign_in
from libs.common import errors
from libs.common.bus.nats import NatsBus
from libs.common.contracts import subjects
from libs.common.contracts.messages import SignInCount, SignInCounts
from services.identity.throttle import Throttle

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
PEOPLE = ("ada", "bea", "cid")
GUESSING_S = 12.0
"""Six at once, then after one, two and four seconds."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory) -> AsyncIterator[Hub]:
    async with Hub(tmp_path_factory.mktemp("replicas"), "--no-local-cluster") as running:
        for name in PEOPLE:
            await running.person(name)
        yield running


async def guess_on(bus: NatsBus, user: str, address: str) -> tuple[int, int]:
    """How many wrong passwords are looked at, by who never pauses; and how many one throttle alone lets in, asked at the same moments."""
    asked = time.monotonic()
    until, let_in, told = asked + GUESSING_S, 0, list[bool]()
    alone = Throttle(lambda: asked)
    while asked < until:
        try:
            alone.begin(user, address)
        except errors.TooManyRequests:
            told.append(False)
        else:
            told.append(True)
        let_in += await is_let_guess(bus, user, address)
        await asyncio.sleep(0.02)
        asked = time.monotonic()
    return let_in, sum(told)


async def last_login(hub: Hub, user: str) -> str:
    shown = await (await hub.admin()).sees("herdsman", "get", "user", user, "-o", "json")
    return str(json.loads(shown)["status"].get("lastLogin", ""))


async def test_two_let_in_as_many_guesses_as_one(hub, tmp_path):
    async with bus_as(hub, "gateway") as bus, second_identity(hub, tmp_path) as log:
        counted = await asyncio.gather(*(guess_on(bus, name, "198.51.100.2") for name in PEOPLE))
        served = log.read_text().count("login_refused")
    print(
        f"guesses let in within {GUESSING_S:.0f} s (two processes, one throttle): {counted}; by the second process {served}"
    )
    assert 0 < served < sum(two for two, _ in counted), "both have answered"
    for name, (two, one) in zip(PEOPLE, counted, strict=True):
        assert abs(two - one) <= 1, name
        assert one > 6


async def test_attempts_at_once_are_not_many_free_tries_over_two_either(hub, tmp_path):
    async with bus_as(hub, "gateway") as bus, second_identity(hub, tmp_path):
        let_in = sum(await asyncio.gather(*(is_let_guess(bus, "ada", "198.51.100.3") for _ in range(40))))
        print(f"of 40 attempts at once {let_in} were answered")
        assert 5 <= let_in <= 7


async def test_who_came_from_there_before_gets_in_at_both_while_strangers_guess(hub, tmp_path):
    async with bus_as(hub, "gateway") as bus, second_identity(hub, tmp_path):
        before = await last_login(hub, "bea")
        await sign_in(bus, "bea", PASSWORD, "198.51.100.9")

        async def is_written() -> bool:
            return await last_login(hub, "bea") != before

        # A new place is written at once, for the other replica to know.
        await eventually(is_written, 5)

        async def strange(number: int) -> None:
            for turn in range(15):
                await is_let_guess(bus, "bea", f"203.0.113.{(20 * turn + number) % 100}")

        strangers = [asyncio.create_task(strange(number), name="stranger") for number in range(20)]
        signed_in = 0
        while not all(task.done() for task in strangers):
            assert (await sign_in(bus, "bea", PASSWORD, "198.51.100.9")).user == "bea"
            signed_in += 1
        await asyncio.gather(*strangers)
        assert signed_in
        await is_let_guess(bus, "bea", "203.0.113.200")
        with pytest.raises(errors.TooManyRequests):
            await sign_in(bus, "bea", PASSWORD, "203.0.113.201")


async def test_no_other_service_can_speak_in_or_hear_the_counts(hub):
    heard = []

    async def hear(message) -> None:
        heard.append(message)

    told = SignInCounts(
        teller="x", throttle="sign-in", what="stand", counts=[SignInCount(kind="pair", key="0" * 32, failures=9)]
    )
    async with (
        bus_as(hub, "gateway") as bus,
        bus_as(hub, "identity") as identity,
        identity.listen(subjects.sign_in_counts(), hear),
    ):
        await bus.publish(subjects.sign_in_counts(), told)
        await is_let_guess(bus, "cid", "198.51.100.7")

        async def has_heard() -> bool:
            return bool(heard)

        # What was said after it has come, so it would have come, too.
        await eventually(has_heard)
    kinds = {message.data for message in heard}
    assert kinds
    assert not any(b"stand" in data for data in kinds)
