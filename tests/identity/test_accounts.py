from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.crypto.sealed import KeyRing
from libs.common.resources.identity import User
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.providers import IdentityProvider, IdentityProviderSpec
from services.identity.accounts import MAX_GROUPS, Accounts, make_user_name, refresh_key
from services.identity.providers.base import Group, Identity
from tests.access import made
from tests.access.hub import running_hub

RING = KeyRing({"k1": bytes(32)})
DIRECTORY = {"servers": ["ldaps://directory.example"], "userBase": "dc=example"}
JANE = Identity("42", "Jane.Doe@example.org", "Jane Doe", groups=(Group("7", "staff"),))


def provider(name: str = "corp", **spec: object) -> IdentityProvider:
    return IdentityProvider(
        metadata=ObjectMeta(name=name, uid=f"uid-{name}", generation=1),
        spec=IdentityProviderSpec.model_validate({"type": "ldap", "enabled": True, "ldap": DIRECTORY, **spec}),
    )


@asynccontextmanager
async def running(clock):
    async with running_hub(clock) as hub:
        yield hub, Accounts(hub.stores["identity"], RING, clock)


async def test_a_first_sign_in_makes_a_user_and_the_next_finds_it(clock):
    async with running(clock) as (_hub, accounts):
        first = await accounts.sign_in(provider(), JANE)
        assert first.name == "jane-doe"
        assert first.status.identities[0].principal_id == "corp:user:42"
        assert first.status.identities[0].groups == ["corp:group:7"]
        clock.forward(60)
        again = await accounts.sign_in(provider(), Identity("42", "renamed", groups=(Group("8", "new"),)))
        assert again.uid == first.uid
        assert again.status.identities[0].groups == ["corp:group:8"]
        assert again.status.identities[0].refreshed_at == clock()


async def test_two_sign_ins_at_once_make_one_user(clock):
    async with running(clock) as (_hub, accounts):
        users = await asyncio.gather(*(accounts.sign_in(provider(), JANE) for _ in range(5)))
        assert len({user.uid for user in users}) == 1


async def test_the_same_name_at_another_provider_is_somebody_else(clock):
    async with running(clock) as (hub, accounts):
        await hub.put(made.user("jane-doe"))
        one = await accounts.sign_in(provider(), JANE)
        two = await accounts.sign_in(provider("other"), JANE)
        assert len({one.name, two.name, "jane-doe"}) == 3
        assert one.uid != two.uid != (await hub.get(User, "jane-doe")).uid


async def test_a_user_made_again_under_the_same_name_inherits_nothing(clock):
    async with running(clock) as (hub, accounts):
        first = await accounts.sign_in(provider(), JANE)
        await hub.delete(first)
        await hub.put(made.user("jane-doe", "other-uid"))
        second = await accounts.sign_in(provider(), JANE)
        assert second.name != "jane-doe"
        assert second.uid not in (first.uid, "other-uid")


@pytest.mark.parametrize("name", ["system:admin", " System:masters", "system：node"])
async def test_names_of_kubernetes_are_refused(clock, name):
    async with running(clock) as (_hub, accounts):
        with pytest.raises(errors.Denied, match="system:"):
            await accounts.sign_in(provider(), Identity("42", name))


async def test_a_group_with_a_name_of_kubernetes_counts_for_nothing(clock):
    async with running(clock) as (_hub, accounts):
        user = await accounts.sign_in(
            provider(), Identity("42", "jane", groups=(Group("1", "system:masters"), Group("2", "ok")))
        )
        assert user.status.identities[0].groups == ["corp:group:2"]


async def test_too_many_groups_are_told(clock):
    async with running(clock) as (_hub, accounts):
        groups = tuple(Group(str(n), f"g{n}") for n in range(MAX_GROUPS + 3))
        user = await accounts.sign_in(provider(), Identity("42", "jane", groups=groups))
        assert len(user.status.identities[0].groups) == MAX_GROUPS
        assert "of 5003 groups" in user.status.identities[0].truncated


@pytest.mark.parametrize(
    ("allowed", "enters"), [(["corp:group:7"], True), (["corp:user:42"], True), (["corp:group:8"], False)]
)
async def test_only_allowed_principals_come_in(clock, allowed, enters):
    async with running(clock) as (_hub, accounts):
        if enters:
            await accounts.sign_in(provider(allowedPrincipals=allowed), JANE)
        else:
            with pytest.raises(errors.Denied, match="not among those"):
                await accounts.sign_in(provider(allowedPrincipals=allowed), JANE)


async def test_without_user_creation_only_linked_accounts_come_in(clock):
    async with running(clock) as (hub, accounts):
        closed, ada = provider(createUsers=False), made.user("ada")
        await hub.put(ada)
        with pytest.raises(errors.Denied, match="linked to no user"):
            await accounts.sign_in(closed, JANE)
        await accounts.link(ada, closed, JANE)
        assert (await accounts.sign_in(closed, JANE)).uid == ada.uid


async def test_a_linked_account_belongs_to_one_user_until_it_is_unlinked(clock):
    async with running(clock) as (hub, accounts):
        ada, bob = made.user("ada"), made.user("bob")
        await hub.put(ada, bob)
        ada = await accounts.link(ada, provider(), JANE)
        with pytest.raises(errors.Conflict, match="belongs to another user"):
            await accounts.link(bob, provider(), JANE)
        with pytest.raises(errors.Conflict, match="linked already"):
            await accounts.link(ada, provider(), Identity("43", "other"))
        await accounts.unlink(ada, "corp")
        linked = await accounts.link(bob, provider(), JANE)
        assert linked.uid == bob.uid
        assert (await accounts.sign_in(provider(), JANE)).uid == bob.uid


async def test_a_disabled_user_is_told_so_and_stays_out(clock):
    async with running(clock) as (hub, accounts):
        user = await accounts.sign_in(provider(), JANE)
        await hub.settle()
        user.spec.enabled = False
        await hub.put(user)
        with pytest.raises(errors.Denied, match="disabled on this hub"):
            await accounts.sign_in(provider(), JANE)


async def test_a_refresh_secret_is_stored_sealed(clock):
    async with running(clock) as (_hub, accounts):
        user = await accounts.sign_in(provider(), Identity("42", "jane", refresh_secret="rt-secret"))
        sealed = user.private.sealed[refresh_key("corp")]
        assert "rt-secret" not in sealed
        assert RING.open(sealed, f"{user.uid}/refresh:corp") == "rt-secret"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("CORP\\Jürgen.Groß", "jurgen-gro"),
        ("a@b@c", "a"),
        ("___", "user"),
        ("x" * 80, "x" * 50),
        ("@host", "host"),
        ("日本", "user"),
    ],
)
def test_user_names_look_like_the_ones_people_know(given, name):
    assert make_user_name(given) == name
