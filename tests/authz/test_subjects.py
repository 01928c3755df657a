"""What bindings say of providers that are disabled or gone, of groups and of accounts: in place, said, and taken back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from libs.common.access.principal import local_group_principal
from libs.common.reconcile import DONE
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.identity import Group, User
from libs.common.resources.providers import IdentityProvider, LinkedIdentity
from services.authz.reconciler import keys_of_binding
from services.authz.subject_reconciler import ProviderSpread, SubjectReconciler
from services.authz.subjects import REACHABLE, Subjects
from tests.access import made
from tests.access.hub import running_hub

GROUP_OF_CORP = "corp:group:g1"


def provider(name: str, *, enabled: bool = True) -> IdentityProvider:
    spec = {"type": "local"} if name == "local" else {
        "type": "ldap", "ldap": {"servers": ["ldaps://one.example"], "userBase": "dc=example"},
    }  # fmt: skip
    return IdentityProvider.model_validate({"metadata": made.meta(name), "spec": {**spec, "enabled": enabled}})


def person(name: str, *providers: str, password: str = "", gone: str = "", service: bool = False) -> User:
    user = made.user(name)
    user.private.password_hash = password
    user.spec.service = service
    user.status.identities = [
        LinkedIdentity(
            provider=p, principal_id=f"{p}:user:{name}", gone=gone, refreshed_at=made.BEGIN, linked_at=made.BEGIN
        )
        for p in providers
    ]
    return user


class Site:
    """The two reconcilers without their runner: `woken` is what would be looked at, `settle` does it."""

    def __init__(self, hub) -> None:
        self.hub = hub
        self.woken: list[str] = []
        self.providers: list[str] = []
        bindings = hub.objects(RoleTemplateBinding)
        self.subjects = Subjects(bindings, self.woken.append, self.providers.append)
        self.reconciler = SubjectReconciler(hub.stores["authz"], self.subjects, hub.now)
        self.spread = ProviderSpread(self.subjects)
        self.subjects.follow(hub.informers["identityproviders"], hub.informers["users"], hub.informers["groups"])

    async def settle(self) -> set[str]:
        """Do what is due. Returns the names of the bindings that were looked at."""
        await self.hub.settle()
        looked: set[str] = set()
        while self.providers or self.woken:
            if self.providers:
                await self.spread.reconcile(self.providers.pop())
                continue
            looked.add(self.woken[-1])
            await self.reconciler.reconcile(self.woken.pop())
            await self.hub.settle()
        return looked

    async def said(self, name: str) -> tuple[str, str] | None:
        found = (await self.hub.get(RoleTemplateBinding, name)).status.condition(REACHABLE)
        return None if found is None else (found.status, found.reason)


@asynccontextmanager
async def running(clock, *objects):
    async with running_hub(clock) as hub:
        await hub.put(provider("local"), provider("corp"), provider("other"), *objects)
        await hub.settle()
        site = Site(hub)
        assert not site.woken
        assert not site.providers
        await site.subjects.begin()
        await site.settle()
        yield site


def bound(who, name: str) -> RoleTemplateBinding:
    return made.binding(who, "cluster-viewer", name=name, cluster="east")


async def test_a_disabled_provider_is_said_at_its_own_bindings_alone_and_taken_back(clock):
    async with running(clock, bound(GROUP_OF_CORP, "ops"), bound("other:group:g1", "others")) as site:
        assert await site.said("ops") is None
        await site.hub.put(provider("corp", enabled=False))
        assert await site.settle() == {"ops"}
        assert await site.said("ops") == ("False", "ProviderDisabled")
        binding = await site.hub.get(RoleTemplateBinding, "ops")
        assert '"corp" is disabled' in binding.status.condition(REACHABLE).message
        assert binding.status.condition(REACHABLE).last_transition_time == clock()
        clock.forward(60)
        await site.hub.put(provider("corp"))
        assert await site.settle() == {"ops"}
        assert await site.said("ops") == ("True", "Reachable")
        assert await site.said("others") is None


async def test_a_deleted_provider_is_said_and_one_made_again_takes_it_back(clock):
    async with running(clock, bound(GROUP_OF_CORP, "ops")) as site:
        await site.hub.delete(provider("corp"))
        await site.settle()
        assert await site.said("ops") == ("False", "ProviderDeleted")
        await site.hub.put(provider("corp", enabled=False))
        await site.settle()
        assert await site.said("ops") == ("False", "ProviderDisabled")
        await site.hub.put(provider("corp"))
        await site.settle()
        assert await site.said("ops") == ("True", "Reachable")


async def test_what_was_disabled_while_nobody_looked_is_said_at_the_start(clock):
    async with running(clock, provider("off", enabled=False), bound("off:user:x", "b")) as site:
        assert await site.said("b") == ("False", "ProviderDisabled")


async def test_a_binding_that_comes_later_says_so_too(clock):
    async with running(clock, provider("off", enabled=False)) as site:
        await site.hub.put(bound("off:user:x", "b"), bound("never:group:x", "c"))
        await site.settle()
        assert await site.said("b") == ("False", "ProviderDisabled")
        assert await site.said("c") == ("False", "ProviderDeleted")


@pytest.mark.parametrize(
    ("user", "closed", "said"),
    [
        (person("jane", "corp"), "corp", ("False", "ProviderDisabled")),
        (person("jane", "corp", password="hash"), "corp", None),
        (person("jane", "corp", "other"), "corp", None),
        (person("jane"), "corp", None),
        (person("jane"), "local", ("False", "ProviderDisabled")),
        (person("jane", "corp"), "local", None),
        (person("jane", service=True), "local", None),
    ],
)
async def test_a_users_binding_says_so_when_no_way_in_is_left(clock, user, closed, said):
    async with running(clock, user, bound(user, "b")) as site:
        await site.hub.put(provider(closed, enabled=False))
        await site.settle()
        assert await site.said("b") == said


async def test_an_account_that_is_gone_and_comes_back(clock):
    jane = person("jane", "corp")
    async with running(clock, jane, bound(jane, "by-user"), bound("corp:user:jane", "by-account")) as site:
        await site.hub.put(person("jane", "corp", gone="removed there"))
        assert await site.settle() == {"by-user", "by-account"}
        assert await site.said("by-user") == await site.said("by-account") == ("False", "AccountGone")
        await site.hub.put(person("jane", "corp"))
        await site.settle()
        assert await site.said("by-user") == await site.said("by-account") == ("True", "Reachable")


async def test_a_person_who_links_another_account_is_found_under_it(clock):
    jane = person("jane", "corp")
    async with running(clock, jane, bound(jane, "b")) as site:
        await site.hub.put(person("jane", "other"))
        await site.hub.put(provider("corp", enabled=False))
        assert await site.settle() == set()
        await site.hub.put(provider("other", enabled=False))
        await site.settle()
        assert await site.said("b") == ("False", "ProviderDisabled")


async def test_a_deleted_group_of_the_hub_is_said_and_one_of_its_name_changes_nothing(clock):
    group = Group(metadata=made.meta("ops"))
    async with running(clock, group, bound(local_group_principal("uid-ops"), "b")) as site:
        await site.hub.delete(group)
        await site.settle()
        assert await site.said("b") == ("False", "GroupDeleted")
        await site.hub.put(Group(metadata=made.meta("ops", "another")))
        await site.settle()
        assert await site.said("b") == ("False", "GroupDeleted")


async def test_what_is_said_already_is_not_written_again_and_a_status_of_a_provider_costs_nothing(clock):
    async with running(clock, bound(GROUP_OF_CORP, "ops")) as site:
        await site.hub.put(provider("corp", enabled=False))
        await site.settle()
        before = (await site.hub.get(RoleTemplateBinding, "ops")).metadata.resource_version
        said = provider("corp", enabled=False)
        said.status.set_condition("Ready", False, "Disabled", "", clock())
        await site.hub.put(said)
        await site.hub.settle()
        assert site.providers == []
        await site.reconciler.reconcile("ops")
        assert (await site.hub.get(RoleTemplateBinding, "ops")).metadata.resource_version == before


async def test_a_change_of_one_provider_touches_only_its_own_of_very_many(clock):
    others = [bound(f"other:group:{n}", f"other-{n}") for n in range(3000)]
    ours = [bound(f"corp:group:{n}", f"corp-{n}") for n in range(5)]
    async with running(clock, *others, *ours) as site:
        looked = []
        judge = site.subjects.judge
        site.subjects.judge = lambda binding: looked.append(binding.name) or judge(binding)
        await site.hub.put(provider("corp", enabled=False))
        assert await site.settle() == {b.name for b in ours}
        assert set(looked) == {b.name for b in ours}


async def test_bindings_that_go_leave_nothing_behind(clock):
    jane = person("jane", "corp")
    async with running(clock, jane, bound(jane, "a"), bound(GROUP_OF_CORP, "b")) as site:
        assert set(site.subjects.bindings_at("corp")) == {"a", "b"}
        for name in ("a", "b"):
            await site.hub.delete(await site.hub.get(RoleTemplateBinding, name))
        assert site.subjects.bindings_at("corp") == []
        assert not site.subjects._of_principal
        assert not any(site.subjects._principals_at.values())
        assert await site.reconciler.reconcile("a") == DONE


async def test_what_a_binding_says_wakes_no_sweeper_and_compiles_no_grants(clock):
    async with running(clock, made.cluster("east"), bound(GROUP_OF_CORP, "ops")) as site:
        changes = []
        site.hub.informers["roletemplatebindings"].subscribe(changes.append, replay=False)
        before = site.hub.live.current
        await site.hub.put(provider("corp", enabled=False))
        await site.settle()
        assert [tuple(keys_of_binding(c)) for c in changes] == [()]
        assert site.hub.live.current is before
        stored = await site.hub.get(RoleTemplateBinding, "ops")
        stored.spec.not_after = clock()
        await site.hub.put(stored)
        assert tuple(keys_of_binding(changes[-1])) == ("ops",)
        assert site.hub.live.current is not before
        await asyncio.sleep(0)


async def test_a_binding_that_cannot_be_read_stops_nothing(clock):
    async with running(clock, bound(GROUP_OF_CORP, "good"), bound("corp:group:g2", "bad")) as site:
        store, key = site.hub.stores["authz"], "roletemplatebindings.bad"
        revision = await store.update(key, b"\x00rubbish", (await store.get(key)).revision)
        await site.hub.informers["roletemplatebindings"].wait_revision(revision)
        await site.hub.put(provider("corp", enabled=False))
        await site.settle()
        assert await site.said("good") == ("False", "ProviderDisabled")
        assert site.subjects.bindings_at("corp") == ["good"]
