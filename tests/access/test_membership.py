from __future__ import annotations

from datetime import timedelta

import pytest

from libs.common.access.membership import may_use, membership_of
from libs.common.resources.meta import ObjectMeta
from libs.common.resources.providers import IdentityProvider, IdentityProviderSpec, LinkedIdentity
from tests.access import made
from tests.conftest import Clock

NOW = Clock()()


def provider(*, enabled: bool = True, max_age_s: int = 600) -> IdentityProvider:
    ldap = {"servers": ["ldaps://x.example"], "user_base": "dc=x"}
    spec = IdentityProviderSpec.model_validate(
        {"type": "ldap", "enabled": enabled, "ldap": ldap, "max_age_seconds": max_age_s}
    )
    return IdentityProvider(metadata=ObjectMeta(name="corp", uid="u"), spec=spec)


def jane(age_s: int = 0):
    user = made.user("jane")
    at = NOW - timedelta(seconds=age_s)
    user.status.identities = [
        LinkedIdentity(
            provider="corp", principal_id="corp:user:1", groups=["corp:group:2"], refreshed_at=at, linked_at=at
        )
    ]
    return user


def test_accounts_and_their_groups_count():
    found = membership_of(jane(), {"corp": provider()}.get, NOW, ["local:group:9"])
    assert found.group_ids == ("corp:group:2", "corp:user:1", "local:group:9")
    assert found.principal_id == jane().status.principal_id
    assert found.until == NOW + timedelta(seconds=600)


@pytest.mark.parametrize(
    ("providers", "age_s"), [({}, 0), ({"corp": provider(enabled=False)}, 0), ({"corp": provider()}, 600)]
)
def test_accounts_of_providers_that_are_gone_or_disabled_or_long_silent_do_not_count(providers, age_s):
    assert membership_of(jane(age_s), providers.get, NOW).group_ids == ()
    assert not may_use("corp", jane(age_s), providers.get, NOW)


def test_a_sign_in_is_good_while_its_provider_vouches_for_the_person():
    assert may_use("corp", jane(), {"corp": provider()}.get, NOW)
    assert not may_use("corp", made.user("jane"), {"corp": provider()}.get, NOW)
    assert may_use("", made.user("jane"), {}.get, NOW)
    assert may_use("local", made.user("jane"), {}.get, NOW)
