"""The condition Ready of providers, with a clock that the test moves."""

from __future__ import annotations

import pytest

from libs.common import errors
from libs.common.reconcile import DONE, After
from libs.common.resources.providers import LOCAL, IdentityProvider
from services.identity import provider_health
from services.identity.provider_health import CONFIRM_S, MOST_AWAY_S, NOTICED_S, REFUSED_S, ProviderHealth
from services.identity.provider_ready import READY, judge_failure
from tests.identity.test_provider_strategy import SECRET, Site
from tests.identity.test_provider_strategy import running as running_site

AWAY = errors.Unavailable("ldaps://one.example cannot be reached: connection refused")
EVERY_S = 60


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch):
    monkeypatch.setattr(provider_health, "JITTER", 0.0)


def health_of(site: Site, clock, *, leads: bool = True) -> ProviderHealth:
    return ProviderHealth(site.hub.stores["identity"], site.providers, clock, lambda: leads)


async def ready(site: Site, name: str = "corp"):
    await site.hub.settle()
    return (await site.hub.get(IdentityProvider, name)).status.condition(READY)


async def sign_in(site: Site) -> None:
    async with site.providers.use("corp") as provider:
        await provider.sign_in("jane", "wrong")


async def revision(site: Site) -> str | None:
    await site.hub.settle()
    return (await site.hub.get(IdentityProvider, "corp")).metadata.resource_version


async def test_the_test_at_a_write_says_that_it_is_ready_and_counts_as_a_look(clock):
    async with running_site(clock) as site:
        reply = await site.create(enabled=True)
        said = await ready(site)
        assert (said.status, said.reason, said.observed_generation) == ("True", "Answers", 1)
        assert reply.document["status"]["conditions"][0]["type"] == "Ready"
        made = len(site.made)
        assert await health_of(site, clock).reconcile("corp") == After(EVERY_S)
        assert len(site.made) == made


async def test_a_provider_that_goes_away_is_asked_once_more_and_then_said_to_be_away_until_it_is_back(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True)
        health, since = health_of(site, clock), clock()
        clock.forward(EVERY_S)
        assert await health.reconcile("corp") == After(EVERY_S)
        site.problem = AWAY
        clock.forward(EVERY_S)
        assert await health.reconcile("corp") == After(CONFIRM_S)
        assert (await ready(site)).status == "True"
        clock.forward(CONFIRM_S)
        assert await health.reconcile("corp") == After(EVERY_S)
        said = await ready(site)
        assert (said.status, said.reason, said.last_transition_time) == ("False", "Unreachable", clock())
        assert "connection refused" in said.message
        assert "See whether the provider runs" in said.message
        site.problem = None
        clock.forward(EVERY_S)
        assert await health.reconcile("corp") == After(EVERY_S)
        said = await ready(site)
        assert (said.status, said.reason, said.last_transition_time) == ("True", "Answers", clock())
        assert said.last_transition_time > since


async def test_while_it_is_away_looks_grow_rarer_and_nothing_is_written_though_the_numbers_in_the_message_change(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True)
        health = health_of(site, clock)
        site.problem = errors.Unavailable("asked too much: try again in 59 s")
        clock.forward(EVERY_S)
        waits = []
        before = None
        for _ in range(7):
            outcome = await health.reconcile("corp")
            waits.append(outcome.seconds)
            clock.forward(outcome.seconds)
            site.problem = errors.Unavailable(f"asked too much: try again in {len(waits)} s")
            if len(waits) == 2:
                before = await revision(site)
        assert waits == [CONFIRM_S, 60, 120, 240, MOST_AWAY_S, MOST_AWAY_S, MOST_AWAY_S]
        assert await revision(site) == before


async def test_a_directory_that_refuses_our_password_is_hardly_asked_lest_it_locks_the_account(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True)
        health = health_of(site, clock)
        site.problem = errors.Invalid("the directory refuses bindDn with bindPassword: check both")
        clock.forward(EVERY_S)
        assert await health.reconcile("corp") == After(CONFIRM_S)
        clock.forward(CONFIRM_S)
        assert await health.reconcile("corp") == After(REFUSED_S)
        made = len(site.made)
        clock.forward(EVERY_S)
        assert await health.reconcile("corp") == After(REFUSED_S - EVERY_S)
        assert len(site.made) == made
        assert (await ready(site)).reason == "SettingsRefused"
        site.problem = None
        assert health.notice("corp", answered=True)
        assert await health.reconcile("corp") == After(EVERY_S)
        assert (await ready(site)).reason == "Answers"


async def test_a_provider_that_is_fine_is_written_once(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True)
        health, before, made = health_of(site, clock), await revision(site), len(site.made)
        for looks in range(1, 4):
            clock.forward(EVERY_S)
            await health.reconcile("corp")
            # What the informer tells in between is no reason to ask again.
            await health.reconcile("corp")
            assert len(site.made) == made + looks
        assert await revision(site) == before
        assert all(provider.closed for provider, _ in site.made)


async def test_a_disabled_provider_is_not_asked_and_says_what_to_do(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True)
        await site.patch(enabled=False)
        said, made = await ready(site), len(site.made)
        assert (said.status, said.reason, said.observed_generation) == ("False", "Disabled", 2)
        assert "spec.enabled" in said.message
        assert await health_of(site, clock).reconcile("corp") == DONE
        assert len(site.made) == made
        await site.patch(enabled=True)
        assert (await ready(site)).reason == "Answers"


async def test_the_hubs_own_accounts_are_always_ready_unless_disabled(clock):
    async with running_site(clock) as site:
        assert await health_of(site, clock).reconcile(LOCAL) == DONE
        said = await ready(site, LOCAL)
        assert (said.status, said.reason) == ("True", "OwnAccounts")


async def test_another_name_for_the_button_keeps_what_is_known(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True)
        made = len(site.made)
        clock.forward(5)
        await site.patch(displayName="Corporate")
        said = await ready(site)
        assert (said.status, said.observed_generation) == ("True", 2)
        assert said.last_transition_time < clock()
        assert len(site.made) == made


async def test_what_people_notice_is_looked_at_at_once_but_not_at_every_call(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True)
        health, made = health_of(site, clock, leads=False), len(site.made)
        assert await health.reconcile("corp") == DONE
        assert len(site.made) == made
        assert not health.notice("corp", answered=True)
        site.problem = AWAY
        assert health.notice("corp", answered=False)
        assert await health.reconcile("corp") == DONE
        assert (await ready(site)).status == "False"
        assert not health.notice("corp", answered=False)
        site.problem = None
        assert health.notice("corp", answered=True)
        assert await health.reconcile("corp") == After(NOTICED_S)
        assert len(site.made) == made + 1
        clock.forward(NOTICED_S)
        await health.reconcile("corp")
        assert (await ready(site)).status == "True"


async def test_a_call_of_people_that_meets_a_provider_which_is_away_tells(clock):
    async with running_site(clock) as site:
        told = []
        site.providers.on_used.append(lambda *what: told.append(what))
        await site.create(enabled=True)
        await site.hub.settle()
        site.problem = AWAY
        with pytest.raises(errors.Unavailable):
            await sign_in(site)
        site.made[-1][0].problem = None
        with pytest.raises(errors.Unauthenticated):
            await sign_in(site)
        async with site.providers.use("corp"):
            pass
        # A refusal may have been made without asking anybody.
        assert told == [("corp", False), ("corp", True)]


async def test_a_look_at_settings_that_were_written_over_meanwhile_says_nothing(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True)
        health, stale = health_of(site, clock), site.providers.resource("corp")
        clock.forward(EVERY_S)
        await site.patch(ldap={"userFilter": "(a=b)"})
        await health._write(stale, judge_failure("corp", AWAY, ()))
        assert (await ready(site)).status == "True"


async def test_no_secret_gets_into_the_message(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True, ldap={"bindPassword": SECRET})
        health = health_of(site, clock)
        site.problem = errors.Invalid(f"the server said: no {SECRET}")
        clock.forward(EVERY_S)
        await health.reconcile("corp")
        clock.forward(CONFIRM_S)
        await health.reconcile("corp")
        said = await ready(site)
        assert said.reason == "SettingsRefused"
        assert SECRET not in said.message
        assert "the log of identity says why" in said.message
        assert "kubectl edit identityprovider corp" in said.message
    assert "pass@" not in judge_failure("x", errors.Unavailable("https://me:pass@proxy failed"), ()).message
    assert len(judge_failure("x", errors.Unavailable("long\n" * 5000), ()).message) < 700


async def test_settings_that_cannot_be_used_are_said_to_be_so(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True, ldap={"bindPassword": SECRET})
        stored = await site.stored()
        stored.private.sealed["bind_password"] = "k9:broken"
        stored.metadata.generation = 2
        await site.hub.put(stored)
        await health_of(site, clock).reconcile("corp")
        clock.forward(CONFIRM_S)
        health = health_of(site, clock)
        health.notice("corp", answered=False)
        await health.reconcile("corp")
        assert (await ready(site)).reason == "Unusable"


async def test_a_provider_that_is_gone_is_forgotten(clock):
    async with running_site(clock) as site:
        await site.create(enabled=True)
        health = health_of(site, clock)
        clock.forward(EVERY_S)
        await health.reconcile("corp")
        await site.hub.delete(await site.stored())
        assert await health.reconcile("corp") == DONE
        assert health._looked == {}
