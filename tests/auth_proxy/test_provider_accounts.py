"""People who came from a provider: their groups' roles count at the door while the provider vouches for them, and not a second longer."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

import pytest

from libs.common.resources import codec
from libs.common.resources.access import BindingScope, RoleTemplateBinding, RoleTemplateBindingSpec
from libs.common.resources.identity import User
from libs.common.resources.providers import IdentityProvider, IdentityProviderSpec, LinkedIdentity
from libs.common.store.base import Entry
from libs.common.store.informer import Change
from services.auth_proxy.authenticate import is_status_of_provider
from tests.auth_proxy.conftest import Echo
from tests.auth_proxy.door import Door, meta

PODS = "/k8s/clusters/prod/api/v1/namespaces/default/pods"
WITHIN_S = 1.0


def provider(*, enabled: bool = True) -> IdentityProvider:
    ldap = {"servers": ["ldaps://x.example"], "user_base": "dc=x"}
    spec = IdentityProviderSpec.model_validate(
        {"type": "ldap", "enabled": enabled, "ldap": ldap, "refresh_seconds": 60, "max_age_seconds": 300}
    )
    return IdentityProvider(metadata=meta("corp"), spec=spec)


async def jane(door: Door, *, groups: tuple[str, ...] = ("corp:group:ops",), age_s: float = 0) -> User:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
    person = await door.user("jane")
    person.status.identities = [
        LinkedIdentity(provider="corp", principal_id="corp:user:1", groups=list(groups), refreshed_at=at, linked_at=at)
    ]
    await door.put(person)
    return person


async def prepare(door: Door) -> str:
    """Jane's token from the provider; the group `ops` has a role in the cluster."""
    await door.put(provider())
    person = await jane(door)
    await door.role()
    await door.cluster("prod")
    spec = RoleTemplateBindingSpec(principal="corp:group:ops", role="cluster-owner", scope=BindingScope(cluster="prod"))
    await door.put(RoleTemplateBinding(metadata=meta("ops"), spec=spec))
    return await door.token(person, provider="corp")


async def test_a_role_of_a_group_counts_in_the_cluster(door: Door, echo: Echo):
    token = await prepare(door)
    async with door.agent("prod", echo.address):
        reply = await door.get(PODS, token)
        assert reply.status == 200
        assert "Impersonate-Group: herdsman:cluster:prod:cluster-owner" in json.loads(reply.body)["head"]


@pytest.mark.parametrize("change", ["disabled", "left the group", "provider deleted", "too old"])
async def test_lost_groups_are_lost_at_once(door: Door, echo: Echo, change: str):
    token = await prepare(door)
    async with door.agent("prod", echo.address):
        assert (await door.get(PODS, token)).status == 200
        match change:
            case "disabled":
                await door.put(provider(enabled=False))
            case "left the group":
                await jane(door, groups=("corp:group:other",))
            case "provider deleted":
                await door.remove(IdentityProvider, "corp")
            case "too old":
                await jane(door, age_s=301)
        for _ in range(round(WITHIN_S / 0.02)):
            reply = await door.get(PODS, token)
            if reply.status != 200:
                break
            await asyncio.sleep(0.02)
        assert reply.status == (403 if change == "left the group" else 401)


def test_what_is_only_said_of_a_provider_makes_the_door_forget_nobody():
    def entry(made: IdentityProvider, revision: int) -> Entry:
        return Entry("identityproviders.corp", codec.encode(made), revision)

    said, closed = provider(), provider(enabled=False)
    said.metadata = closed.metadata = provider().metadata.model_copy(update={"uid": "one"})
    before = said.model_copy(deep=True)
    said.status.set_condition("Ready", False, "Unreachable", "it does not answer", dt.datetime.now(dt.UTC))
    first, second, third = entry(before, 1), entry(said, 2), entry(closed, 3)
    assert is_status_of_provider(Change(first.key, first, second, second))
    assert not is_status_of_provider(Change(first.key, second, third, third))
    assert not is_status_of_provider(Change(first.key, None, first, first))
    assert not is_status_of_provider(Change(first.key, third, None, third))
    broken = Entry(first.key, b"\x00rubbish", 4)
    assert not is_status_of_provider(Change(first.key, first, broken, broken))
