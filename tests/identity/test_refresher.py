from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.crypto.sealed import KeyRing
from libs.common.reconcile import DONE, After
from libs.common.resources.identity import Token, User
from services.identity.accounts import Accounts
from services.identity.provider_ends import ProviderEnds
from services.identity.providers.base import Group
from services.identity.refresher import AWAY_S, Refresher
from tests.identity.service import MESSAGE, PASSWORD, running
from tests.identity.test_accounts import provider

RING = KeyRing({"k1": bytes(32)})
REFRESH_S = 900


class Site:
    """The service with a directory in which jane is, signed in once."""

    def __init__(self, service) -> None:
        self.service, self.hub, self.directory = service, service.hub, service.directory
        store, now = self.hub.stores["identity"], self.hub.now
        self.refresher = Refresher(
            self.hub.objects(User),
            service.providers,
            Accounts(store, RING, now),
            service.tokens,
            RING,
            now,
            service.handlers.attempts,
        )
        self.ends = ProviderEnds(service.providers, service.tokens, service.handlers.attempts)
        self.token = ""

    async def sign_in(self) -> None:
        issued = await self.service.handlers.login(
            m.LoginRequest(user="jane", password=PASSWORD, provider="corp"), MESSAGE
        )
        self.token = issued.name
        await self.hub.settle()

    async def look(self):
        outcome = await self.refresher.reconcile("jane")
        await self.hub.settle()
        return outcome

    async def jane(self) -> User:
        return await self.hub.get(User, "jane")


@asynccontextmanager
async def site_of(clock):
    async with running(clock) as service:
        await service.hub.put(provider())
        service.directory.add("jane", PASSWORD)
        site = Site(service)
        await site.sign_in()
        yield site


async def test_groups_are_read_again_when_they_are_due_and_not_before(clock):
    async with site_of(clock) as site:
        site.directory.change("jane", groups=(Group("g-new", "new"),))
        outcome = await site.look()
        assert isinstance(outcome, After)
        assert REFRESH_S <= outcome.seconds <= 1.1 * REFRESH_S
        assert (await site.jane()).status.identities[0].groups == ["corp:group:g-staff"]
        clock.forward(REFRESH_S)
        await site.look()
        assert (await site.jane()).status.identities[0].groups == ["corp:group:g-new"]
        assert (await site.jane()).status.identities[0].refreshed_at == clock()
        lost = site.service.trail.events[-1]
        assert (lost.action, lost.reason, lost.account, lost.by) == ("refresh-groups", "groups_lost", "jane", "hub")
        assert "corp:group:g-staff" in lost.note


async def test_a_person_who_is_gone_at_the_provider_loses_everything_from_there(clock):
    async with site_of(clock) as site:
        del site.directory.accounts["jane"]
        clock.forward(REFRESH_S)
        assert await site.look() == DONE
        account = (await site.jane()).status.identities[0]
        assert account.gone == "the account is gone"
        assert account.groups == []
        with pytest.raises(errors.NotFound):
            await site.hub.get(Token, site.token)
        assert site.service.trail.told[-1] == ("refresh-groups", "success", "account_gone", "jane")


async def test_a_person_who_is_back_at_the_provider_may_come_back(clock):
    async with site_of(clock) as site:
        kept = dict(site.directory.accounts)
        site.directory.accounts.clear()
        clock.forward(REFRESH_S)
        await site.look()
        site.directory.accounts.update(kept)
        await site.sign_in()
        account = (await site.jane()).status.identities[0]
        assert account.gone == ""
        assert account.groups == ["corp:group:g-staff"]


async def test_a_provider_that_is_away_costs_nobody_anything(clock):
    async with site_of(clock) as site:
        site.directory.problem = errors.Unavailable("away")
        clock.forward(REFRESH_S)
        outcome = await site.look()
        assert isinstance(outcome, After)
        assert 0.6 * AWAY_S < outcome.seconds < 1.4 * AWAY_S
        assert (await site.jane()).status.identities[0].groups == ["corp:group:g-staff"]
        assert await site.hub.get(Token, site.token)


async def test_nobody_without_a_token_is_refreshed(clock):
    async with site_of(clock) as site:
        await site.service.tokens.revoke(site.token)
        clock.forward(REFRESH_S)
        outcome = await site.look()
        assert isinstance(outcome, After)
        assert REFRESH_S <= outcome.seconds <= 1.1 * REFRESH_S
        assert (await site.jane()).status.identities[0].refreshed_at < clock()


async def test_a_disabled_provider_ends_its_own_sign_ins_and_no_others(clock):
    async with site_of(clock) as site:
        local = await site.service.login("ada")
        await site.hub.settle()
        assert await site.ends.reconcile("corp") == DONE
        assert await site.hub.get(Token, site.token)
        await site.hub.put(provider(enabled=False))
        await site.ends.reconcile("corp")
        with pytest.raises(errors.NotFound):
            await site.hub.get(Token, site.token)
        assert await site.hub.get(Token, local.name)
