"""People who came from a provider: their groups' roles count at the door while the provider vouches for them, and not a second longer."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

import pytest

from libs.common.resources.access import BindingScope, RoleTemplateBinding, RoleTemplateBindingSpec
from libs.common.resources.identity import User
from libs.common.resources.providers import IdentityProvider, IdentityProviderSpec, LinkedIdentity
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
