from __future__ import annotations

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.resources.identity import Token
from tests.access import made
from tests.identity.service import ADA, BOB, EVE, MESSAGE, running
from tests.identity.test_strategies import running as writing

HELPER = made.binding(BOB, "helper", everywhere=True)


def bot(name: str = "bot", **spec: object):
    user = made.user(name)
    user.spec.service = True
    for field, value in spec.items():
        setattr(user.spec, field, value)
    return user


async def issue(s, who, user="bot", *, caller=None, **more):
    request = m.TokenIssue(
        identity=s.hub.envelope(who, **(caller or {})), purpose=more.pop("purpose", "api"), user=user, **more
    )
    return await s.handlers.issue_token(request, MESSAGE)


async def test_who_may_update_a_service_user_issues_tokens_for_it(clock):
    async with running(clock, bindings=(HELPER,)) as s:
        await s.hub.put(bot())
        issued = await issue(s, BOB, clusters=["east"], read_only=True, ttl_s=3600, description="ci")
        token = await s.hub.get(Token, issued.name)
        assert (token.spec.user, token.spec.purpose, token.spec.provider, token.spec.parent) == ("bot", "api", "", "")
        assert (token.spec.clusters, token.spec.read_only) == (["east"], True)
        assert (token.spec.expires_at - clock()).total_seconds() == 3600


async def test_nobody_else_does_and_not_for_a_person(clock):
    async with running(clock, bindings=(HELPER,)) as s:
        await s.hub.put(bot(), bot("off", enabled=False))
        for who, user, says in ((EVE, "bot", "right to update"), (BOB, "ada", "is a person"), (BOB, "off", "disabled")):
            with pytest.raises(errors.Denied, match=says):
                await issue(s, who, user)
        with pytest.raises(errors.Denied, match="restricted"):
            await issue(s, BOB, caller={"clusters": ["east"]})
        with pytest.raises(errors.Invalid, match="purpose api"):
            await issue(s, BOB, purpose="exec")


async def test_a_service_user_with_more_rights_than_the_caller_is_out_of_reach(clock):
    async with running(clock, bindings=(HELPER,)) as s:
        strong = bot("strong")
        await s.hub.put(strong, made.binding(strong, "admin", everywhere=True))
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await issue(s, BOB, "strong")


async def test_nobody_signs_in_as_a_service_user_nor_gives_it_a_password(clock):
    async with running(clock, bindings=(HELPER,)) as s:
        machine = bot()
        machine.private.password_hash = (await s.hub.get(type(ADA), "ada")).private.password_hash
        await s.hub.put(machine)
        with pytest.raises(errors.Unauthenticated, match="wrong"):
            await s.login("bot")
        with pytest.raises(errors.Invalid, match="service user"):
            await s.change(BOB, "bot", "another good passphrase")


async def test_a_person_does_not_become_a_machine(clock):
    async with writing(clock, ADA) as (hub, writer):
        with pytest.raises(errors.Invalid, match="does not become a machine"):
            await hub.write(writer, ADA, "patch", "bob", plural="users", body={"spec": {"service": True}})
