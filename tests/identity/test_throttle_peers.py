"""Replicas of identity count together: two and more throttles on one bus."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from libs.common import errors
from libs.common.bus import wire
from libs.common.bus.memory import MemoryBus
from libs.common.contracts import subjects
from libs.common.contracts.messages import SignInCounts
from services.identity.throttle import LIMITS, Throttle
from services.identity.throttle_peers import ThrottlePeers


class Replica:
    def __init__(self, site) -> None:
        self.peers = ThrottlePeers(site.bus, lambda: site.seconds)
        self.throttle = self.peers.throttle("sign-in")
        self.other = self.peers.throttle("devices")
        self.deaf = False

    async def hear(self, message) -> None:
        if not self.deaf:
            await self.peers.hear(wire.parse(SignInCounts, message.data), message)


class Site:
    def __init__(self) -> None:
        self.bus, self.seconds, self.said = MemoryBus(), 0.0, []
        self.replicas: list[Replica] = []
        self.stack = AsyncExitStack()

    async def start(self) -> Replica:
        replica = Replica(self)
        await self.stack.enter_async_context(self.bus.listen(subjects.sign_in_counts(), replica.hear))
        task = asyncio.create_task(replica.peers.run(), name="sign-in counts")

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self.stack.push_async_callback(end)
        self.replicas.append(replica)
        return replica

    async def settle(self) -> None:
        """Until what was told was heard, and answered."""
        for _ in range(20):
            await asyncio.sleep(0)


@asynccontextmanager
async def site_of(count: int):
    site = Site()

    async def overhear(message) -> None:
        site.said.append(message.data)

    async with site.stack:
        await site.stack.enter_async_context(site.bus.listen(subjects.sign_in_counts(), overhear))
        for _ in range(count):
            await site.start()
        yield site


def guess(throttle: Throttle, user: str = "ada", address: str = "192.0.2.1", **more) -> bool:
    try:
        throttle.begin(user, address, **more)
    except errors.TooManyRequests:
        return False
    return True


def guesses_of_one(seconds: int) -> int:
    """What one replica lets in when somebody tries a hundred times a second."""
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    let_in = 0
    for step in range(seconds * 100):
        now[0] = step / 100
        let_in += guess(throttle)
    return let_in


@pytest.mark.parametrize("count", [2, 5])
async def test_many_replicas_let_in_as_many_guesses_as_one(count):
    async with site_of(count) as site:
        let_in = 0
        for step in range(60 * 100):
            site.seconds = step / 100
            let_in += guess(random.choice(site.replicas).throttle)
            await site.settle()
        assert let_in == guesses_of_one(60)


async def test_attempts_that_cross_are_all_counted_and_all_replicas_agree_afterwards():
    async with site_of(3) as site:
        for _ in range(4):
            assert all(guess(replica.throttle) for replica in site.replicas[:2])
        await site.settle()
        assert len({tuple(c.failures for c in r.throttle._counts.values()) for r in site.replicas}) == 1
        assert not any(guess(replica.throttle) for replica in site.replicas)


@pytest.mark.parametrize("count", [2, 3, 7])
async def test_of_many_attempts_at_once_at_all_replicas_as_many_are_answered_as_at_one(count):
    """Half of them are right: that is told to nobody who has no place either."""
    async with site_of(count) as site:
        answers = []

        async def attempt(replica: Replica, *, right: bool) -> None:
            try:
                with replica.throttle.guess("ada", "192.0.2.1"):
                    await site.settle()
                    if not right:
                        raise errors.Unauthenticated("wrong")
            except errors.HerdsmanError as exc:
                answers.append(type(exc))
            else:
                answers.append(None)

        await asyncio.gather(*(attempt(replica, right=False) for _ in range(20) for replica in site.replicas))
        assert answers.count(errors.Unauthenticated) == LIMITS["pair"].free + 1
        answers.clear()
        # They all counted, so the wait is that of all.
        site.seconds += min(LIMITS["pair"].longest_s, 2 ** (count * 6 - 6)) + 1
        await asyncio.gather(*(attempt(replica, right=True) for replica in site.replicas))
        assert answers.count(None) == 1
        assert answers.count(errors.TooManyRequests) == count - 1


async def test_a_right_password_at_one_starts_afresh_at_all():
    async with site_of(2) as site:
        first, second = site.replicas
        for _ in range(5):
            assert guess(first.throttle)
            await site.settle()
        assert guess(second.throttle)
        second.throttle.succeeded("ada", "192.0.2.1")
        await site.settle()
        assert all(guess(first.throttle) for _ in range(5))


async def test_a_replica_that_has_just_started_lets_in_one_guess_and_then_knows_what_the_others_have():
    async with site_of(2) as site:
        while guess(site.replicas[0].throttle):
            await site.settle()
        fresh = await site.start()
        assert guess(fresh.throttle)
        await site.settle()
        assert not guess(fresh.throttle)


async def test_lost_messages_weaken_the_limit_until_the_next_one():
    async with site_of(2) as site:
        first, second = site.replicas
        second.deaf = True
        while guess(first.throttle):
            await site.settle()
        second.deaf = False
        assert guess(second.throttle)
        await site.settle()
        assert not guess(second.throttle)


async def test_a_thousand_strangers_at_all_replicas_keep_nobody_out_who_came_from_there_before():
    async with site_of(2) as site:
        for number in range(1000):
            if not guess(random.choice(site.replicas).throttle, address=f"10.0.{number % 250}.1"):
                site.seconds += 0.01
            await site.settle()
            for replica in site.replicas:
                replica.throttle.begin("ada", "192.0.2.7", known=True)
                replica.throttle.succeeded("ada", "192.0.2.7", known=True)
        await site.settle()
        assert not any(guess(replica.throttle, address="192.0.2.8") for replica in site.replicas)


async def test_throttles_of_other_names_do_not_mix_and_no_name_is_ever_sent():
    async with site_of(2) as site:
        first, second = site.replicas
        for _ in range(6):
            guess(first.throttle, "hunter2 typed into the wrong field")
        await site.settle()
        assert guess(second.other, "hunter2 typed into the wrong field")
        assert len(site.said) == 6
        assert not any(b"hunter2" in data or b"192.0.2.1" in data for data in site.said)


async def test_without_a_bus_each_counts_alone_and_nothing_fails():
    async with site_of(2) as site:
        site.bus.disconnect()
        for replica in site.replicas:
            assert sum(guess(replica.throttle) for _ in range(10)) == LIMITS["pair"].free + 1
            await site.settle()
        site.bus.reconnect()
        site.seconds += 2
        assert guess(site.replicas[0].throttle)
