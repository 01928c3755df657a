"""Users whom nobody uses are disabled, and nobody else: with a clock that the test moves."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from libs.common import errors
from libs.common.contracts.messages import TokenUse, TokenUses
from libs.common.crypto.sealed import KeyRing
from libs.common.reconcile import DONE, After
from libs.common.resources.identity import User
from libs.common.resources.providers import IdentityProvider, LocalSettings, parse_period
from services.identity.activity import LastActivities
from services.identity.inactive import LOOK_S, InactiveUsers
from services.identity.inactive_rules import INACTIVE, LATE, grain_of, last_active
from services.identity.provider_strategy import IdentityProviderStrategy
from services.identity.strategies import UserStrategy
from services.identity.token_use import LastUses
from tests.access import made
from tests.identity.recorder import Recorder, attempts_of
from tests.identity.service import ADA, BOB, MESSAGE, running
from tests.identity.test_service_users import bot

DAY = timedelta(days=1)
PERIOD = 90 * DAY
ADMINS = (made.binding(ADA, "admin", everywhere=True),)
POLICY = {"disableInactiveAfter": "90d"}
RING = KeyRing({"k1": bytes(32)})


def policy(**local: object) -> IdentityProvider:
    return IdentityProvider.model_validate(
        {"metadata": made.meta("local"), "spec": {"type": "local", "enabled": True, "local": local}}
    )


class Site:
    def __init__(self, service, *, leads: bool = True) -> None:
        self.service, self.hub = service, service.hub
        store, users, now = self.hub.stores["identity"], self.hub.objects(User), self.hub.now
        self.activities = LastActivities(store, users, now, lambda: grain_of(service.providers.local_settings()))
        self.uses = LastUses(store, now, self.activities.note)
        self.trail = Recorder()
        attempts = attempts_of(self.hub, self.trail)
        self.inactive = InactiveUsers(
            store, users, service.providers, service.tokens.records, self.hub.live, attempts, now, lambda: leads,
            (service.logins.flush, self.flush), self.activities.seen,
        )  # fmt: skip
        self.users = self.hub.writer("identity", {"users": UserStrategy(self.hub.live, attempts)})
        strategy = IdentityProviderStrategy(service.providers, RING, attempts, self.inactive.preview)
        self.writer = self.hub.writer("identity", {"identityproviders": strategy})

    async def flush(self) -> None:
        await self.uses.flush()
        await self.activities.flush()

    async def look(self):
        outcome = await self.inactive.reconcile("users")
        await self.hub.settle()
        return outcome

    async def user(self, name: str) -> User:
        return await self.hub.get(User, name)

    async def enabled(self) -> set[str]:
        return {u.name for u in self.hub.objects(User).all() if u.spec.enabled}

    async def used(self, token: str) -> None:
        """As the front door reports it."""
        await self.uses.note(TokenUses(uses=[TokenUse(name=token, at=self.hub.now())]), MESSAGE)

    async def patch_user(self, name: str, **spec: object):
        return await self.hub.write(self.users, ADA, "patch", name, plural="users", body={"spec": spec})


@asynccontextmanager
async def site_of(clock, *objects, leads: bool = True, bindings=ADMINS, **local):
    """Ada is the admin; all were made at `made.BEGIN`, a day before the clock begins."""
    async with running(clock, bindings=bindings) as service:
        await service.hub.put(policy(**(local or POLICY)), *objects)
        site = Site(service, leads=leads)
        site.inactive.begin()
        yield site


def days(clock, number: float) -> None:
    clock.forward(number * 86_400)


async def test_who_was_not_there_for_so_long_is_disabled_and_says_why(clock):
    async with site_of(clock) as site:
        days(clock, 80)
        await site.service.login("bob")
        await site.look()
        assert await site.enabled() == {"ada", "bob", "eve"}
        days(clock, 12)
        assert isinstance(await site.look(), After)
        # Eve never signed in: her making counts. Ada, the last admin, stays.
        assert await site.enabled() == {"ada", "bob"}
        eve = await site.user("eve")
        said = eve.status.condition(INACTIVE)
        assert (said.status, said.reason, said.observed_generation) == ("True", "NotUsed", eve.metadata.generation)
        assert "2026-01-01T00:00:00Z" in said.message
        assert 'disableInactiveAfter of the provider "local" is 90d' in said.message
        assert "herdsman user enable eve" in said.message
        assert ("disable-user", "success", "inactive", "eve") in site.trail.told
        with pytest.raises(errors.Unauthenticated):
            await site.service.login("eve")


async def test_without_a_policy_nobody_is_and_a_replica_that_does_not_lead_does_nothing(clock):
    async with site_of(clock, minPasswordLength=12) as site:
        days(clock, 4000)
        assert await site.look() == DONE
        assert await site.enabled() == {"ada", "bob", "eve"}
    async with site_of(clock, leads=False) as site:
        days(clock, 4000)
        assert await site.look() == DONE
        assert await site.enabled() == {"ada", "bob", "eve"}


async def test_after_an_outage_people_have_a_day_to_come_back(clock):
    async with site_of(clock) as site:
        days(clock, 200)
        site.inactive.begin()
        assert await site.look() == After(LOOK_S)
        clock.forward(86_399)
        assert await site.look() == After(1)
        await site.service.login("bob")
        clock.forward(1)
        await site.look()
        assert await site.enabled() == {"ada", "bob"}


async def test_the_use_of_a_token_counts_though_nobody_signs_in(clock):
    async with site_of(clock) as site:
        token = (await site.service.tokens.issue(BOB, "api", ttl_s=89 * 86_400)).name
        days(clock, 60)
        await site.used(token)
        await site.look()
        days(clock, 60)
        await site.look()
        assert await site.enabled() == {"ada", "bob"}
        days(clock, 31)
        await site.look()
        assert await site.enabled() == {"ada"}


async def test_what_only_a_token_knows_is_asked_for_before_anybody_is_disabled(clock):
    """Such as after an upgrade from a version that wrote down no activity of users."""
    async with site_of(clock) as site:
        token = (await site.service.tokens.issue(BOB, "api", ttl_s=89 * 86_400)).name
        days(clock, 60)
        used = clock()
        uses = LastUses(site.hub.stores["identity"], clock)
        await uses.note(TokenUses(uses=[TokenUse(name=token, at=used)]), MESSAGE)
        await uses.flush()
        days(clock, 31)
        await site.look()
        assert await site.enabled() == {"ada", "bob"}
        assert last_active(await site.user("bob")) < used
        await site.look()
        # Written down, so that the next looks need not ask.
        assert last_active(await site.user("bob")) == used


async def test_activity_is_written_once_an_hour_at_most(clock):
    async with site_of(clock) as site:
        token = (await site.service.tokens.issue(BOB, "api")).name
        revisions = set()
        for _ in range(12):
            clock.forward(300)
            await site.used(token)
            await site.flush()
            await site.hub.settle()
            revisions.add((await site.user("bob")).metadata.resource_version)
        assert len(revisions) == 1
        clock.forward(300)
        await site.used(token)
        await site.flush()
        assert (await site.user("bob")).status.last_activity_time == clock()
        # A later user of the name is somebody else.
        await site.hub.delete(await site.user("bob"))
        await site.hub.put(made.user("bob", "another"))
        days(clock, 1)
        await site.used(token)
        await site.flush()
        assert (await site.user("bob")).status.last_activity_time is None


async def test_the_last_admin_stays_and_of_several_the_one_who_was_there_last(clock):
    two = (*ADMINS, made.binding(BOB, "admin", everywhere=True))
    async with site_of(clock, bindings=two) as site:
        days(clock, 1)
        await site.service.login("bob")
        days(clock, 200)
        await site.look()
        assert await site.enabled() == {"bob"}
        await site.look()
        assert await site.enabled() == {"bob"}


async def test_a_machine_with_the_role_of_an_admin_is_no_reason_to_disable_the_last_person(clock):
    robot = bot("robot")
    async with site_of(clock, robot, bindings=(*ADMINS, made.binding(robot, "admin", everywhere=True))) as site:
        days(clock, 200)
        await site.look()
        assert await site.enabled() == {"ada", "robot"}


async def test_where_nobody_is_known_to_be_an_admin_nobody_is_disabled(clock):
    async with site_of(clock, bindings=()) as site:
        days(clock, 200)
        assert await site.look() == After(LOOK_S)
        assert await site.enabled() == {"ada", "bob", "eve"}


async def test_service_users_have_a_switch_of_their_own(clock):
    async with site_of(clock, bot()) as site:
        days(clock, 200)
        await site.look()
        assert await site.enabled() == {"ada", "bot"}
    async with site_of(clock, bot(), disableInactiveServicesAfter="10d") as site:
        days(clock, 11)
        await site.look()
        assert await site.enabled() == {"ada", "bob", "eve"}
        assert "disableInactiveServicesAfter" in (await site.user("bot")).status.condition(INACTIVE).message


async def test_an_account_for_emergencies_is_kept(clock):
    async with site_of(clock) as site:
        await site.patch_user("eve", keepWhenInactive=True)
        days(clock, 1000)
        await site.look()
        assert await site.enabled() == {"ada", "eve"}


async def test_who_is_enabled_again_gets_a_full_new_period_each_time(clock):
    async with site_of(clock) as site:
        days(clock, 91)
        await site.look()
        for _ in range(2):
            assert await site.enabled() == {"ada"}
            await site.patch_user("eve", enabled=True)
            said = (await site.user("eve")).status.condition(INACTIVE)
            assert (said.status, said.reason, said.last_transition_time) == ("False", "EnabledAgain", clock())
            await site.look()
            days(clock, 89)
            await site.look()
            assert await site.enabled() == {"ada", "eve"}
            # By hand, too.
            await site.patch_user("eve", enabled=False)
            await site.patch_user("eve", enabled=True)
            days(clock, 89)
            await site.look()
            assert await site.enabled() == {"ada", "eve"}
            days(clock, 2)
            await site.look()


async def test_it_is_done_on_time_and_looks_are_rare(clock):
    async with site_of(clock) as site:
        assert await site.look() == After(LOOK_S)
        ends = made.BEGIN + PERIOD + LATE
        clock.moment = ends - timedelta(seconds=100)
        assert await site.look() == After(100)
        clock.forward(100)
        await site.look()
        assert await site.enabled() == {"ada"}


async def test_who_comes_back_in_the_meantime_stays(clock):
    async with site_of(clock) as site:
        days(clock, 200)
        settings = site.service.providers.local_settings()
        due, _ = await site.inactive._find(settings)
        bob = next(idle for idle in due if idle.user.name == "bob")
        await site.service.login("bob")
        await site.service.logins.flush()
        assert not await site.inactive._disable(bob, settings)
        assert (await site.user("bob")).spec.enabled


async def test_a_dry_run_of_the_policy_says_whom_it_hits_and_changes_nothing(clock):
    async with site_of(clock, bot(), minPasswordLength=12) as site:
        days(clock, 91)
        body = {"spec": {"local": {"disableInactiveAfter": "90d", "disableInactiveServicesAfter": "90d"}}}
        reply = await site.hub.write(
            site.writer, ADA, "patch", "local", plural="identityproviders", body=body, dry_run=True
        )
        assert reply.warnings == [
            "disabled at once for not being used: 3 users: bob, bot, eve; keepWhenInactive: true in the spec of a user prevents it"
        ]
        assert await site.look() == DONE
        short = {"spec": {"local": {"disableInactiveAfter": "30m"}}}
        reply = await site.hub.write(site.writer, ADA, "patch", "local", plural="identityproviders", body=short)
        assert "shorter than a day" in reply.warnings[0]
        other = {"spec": {"local": {"minPasswordLength": 20}}}
        reply = await site.hub.write(site.writer, ADA, "patch", "local", plural="identityproviders", body=other)
        assert reply.warnings == []


@pytest.mark.parametrize("text", ["90", "d", "0d", "1.5d", "-1d", "59s", "99999999d", "3651d", "90 d", "٣d", "90D"])
def test_what_is_no_period_is_refused(text):
    with pytest.raises(ValueError, match="must be a time like 90d"):
        LocalSettings(disable_inactive_after=text)


def test_periods_are_read_and_activity_is_fine_enough_for_them():
    assert [parse_period(t) for t in ("", "60s", "12h", "90d")] == [None, timedelta(minutes=1), DAY / 2, PERIOD]
    assert grain_of(LocalSettings()) == grain_of(LocalSettings(disable_inactive_after="90d")) == timedelta(hours=1)
    assert grain_of(LocalSettings(disable_inactive_services_after="1h")) == timedelta(minutes=15)
