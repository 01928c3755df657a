"""The last use of tokens, as it is reported: written seldom, never later than now, and kept until it is written."""

from __future__ import annotations

from datetime import timedelta

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.contracts.messages import TokenUse, TokenUses
from services.identity import token_use
from services.identity.token_use import LastUses
from tests.identity.service import ADA, running

MESSAGE = Message("svc.identity.v1.note_token_use", b"", {})


def used(name: str, at) -> TokenUses:
    return TokenUses(uses=[TokenUse(name=name, at=at)])


async def test_the_newest_use_is_written_and_not_again_for_some_minutes(clock):
    async with running(clock) as s:
        name = (await s.tokens.issue(ADA, "api")).name
        uses = LastUses(s.hub.stores["identity"], clock)
        first = clock()
        await uses.note(used(name, first), MESSAGE)
        await uses.note(used(name, first - timedelta(seconds=5)), MESSAGE)
        await uses.flush()
        assert (await s.token(name)).status.last_used == first
        clock.forward(60)
        await uses.note(used(name, clock()), MESSAGE)
        await uses.flush()
        assert (await s.token(name)).status.last_used == first
        clock.forward(240)
        await uses.note(used(name, clock()), MESSAGE)
        await uses.flush()
        assert (await s.token(name)).status.last_used == clock()


async def test_a_time_to_come_counts_as_now_and_what_is_no_name_or_no_token_as_nothing(clock):
    async with running(clock) as s:
        name = (await s.tokens.issue(ADA, "api")).name
        uses = LastUses(s.hub.stores["identity"], clock)
        await uses.note(used(name, clock() + timedelta(days=400)), MESSAGE)
        await uses.note(used("no.name > at all", clock()), MESSAGE)
        await uses.note(used("never-there", clock()), MESSAGE)
        await uses.flush()
        assert (await s.token(name)).status.last_used == clock()
        assert uses._pending == {}


async def test_what_cannot_be_written_is_written_later_and_no_more_is_kept_than_may_be(clock, monkeypatch):
    async with running(clock) as s:
        name = (await s.tokens.issue(ADA, "api")).name
        store = s.hub.stores["identity"]
        uses = LastUses(store, clock)
        await uses.note(used(name, clock()), MESSAGE)
        monkeypatch.setattr(token_use, "MOST", 1)
        await uses.note(used("one-more", clock()), MESSAGE)
        assert list(uses._pending) == [name]

        async def refuse(*_arguments, **_named):
            raise errors.Unavailable("the store takes no writes")

        with monkeypatch.context() as patch:
            patch.setattr(store, "update", refuse)
            await uses.flush()
        await uses.flush()
        assert (await s.token(name)).status.last_used == clock()
