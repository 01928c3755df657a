"""What the methods of identity tell the audit log: each refusal with its cause, which the caller never hears; no secret, and no name that is none."""

from __future__ import annotations

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.observe import client
from libs.common.resources.identity import Token
from services.identity.sign_in import WRONG
from tests.access import made
from tests.identity.service import ADA, BOB, EVE, MESSAGE, PASSWORD, running
from tests.identity.test_accounts import provider

TYPED = "hunter2-in-the-wrong-field"


async def refused(service, family, **more) -> str:
    facts = {"user": "ada", "password": "wrong", "client_address": "192.0.2.9", **more}
    with pytest.raises(family) as caught:
        await service.handlers.login(m.LoginRequest(**facts), MESSAGE)
    return caught.value.message


async def test_a_sign_in_is_told_with_person_provider_token_and_where_it_came_from(clock):
    async with running(clock) as s:
        with client.entered(client.make("192.0.2.1", "herdsman/1.0 (linux)")):
            issued = await s.login()
        (event,) = s.trail.events
        assert (event.action, event.outcome, event.by, event.actor, event.account) == (
            "sign-in",
            "success",
            "person",
            "ada",
            "ada",
        )
        assert (event.provider, event.token, event.address) == ("local", issued.name, "192.0.2.1")
        assert event.agent == "herdsman/1.0 (linux)"
        assert issued.token not in event.model_dump_json()


async def test_each_refusal_has_its_cause_and_all_look_alike_to_who_is_refused(clock):
    async with running(clock) as s:
        bob = BOB.model_copy(deep=True)
        bob.spec.enabled = False
        bob.private.password_hash = (await s.hub.get(type(BOB), "bob")).private.password_hash
        await s.hub.put(bob)
        said = {
            await refused(s, errors.Unauthenticated),
            await refused(s, errors.Unauthenticated, user="bob", password=PASSWORD),
            await refused(s, errors.Unauthenticated, user="nobody"),
            await refused(s, errors.Unauthenticated, user=TYPED),
        }
        assert said == {WRONG}
        assert s.trail.told == [
            ("sign-in", "failure", "wrong_password", "ada"),
            ("sign-in", "failure", "user_disabled", "bob"),
            ("sign-in", "failure", "no_such_user", ""),
            ("sign-in", "failure", "no_such_user", ""),
        ]
        assert {(e.by, e.actor, e.address, e.code) for e in s.trail.events} == {("nobody", "", "192.0.2.9", 401)}
        text = " ".join(e.model_dump_json() for e in s.trail.events)
        assert TYPED not in text
        assert PASSWORD not in text


async def test_a_throttled_attempt_is_told_as_such(clock):
    async with running(clock) as s:
        for _ in range(6):
            await refused(s, errors.Unauthenticated)
        await refused(s, errors.TooManyRequests)
        assert s.trail.told[-1] == ("sign-in", "failure", "throttled", "ada")


async def test_a_name_at_a_directory_is_written_down_once_an_account_is_called_so(clock):
    async with running(clock) as s:
        await s.hub.put(provider("corp"))
        s.directory.add("jane", PASSWORD)
        await refused(s, errors.Unauthenticated, user="jane", provider="corp")
        await s.handlers.login(m.LoginRequest(user="jane", password=PASSWORD, provider="corp"), MESSAGE)
        await s.hub.settle()
        await refused(s, errors.Unauthenticated, user="JANE", provider="corp")
        await refused(s, errors.NotFound, user="jane", provider="no-such")
        assert s.trail.told == [
            ("sign-in", "failure", "wrong_credentials", ""),
            ("sign-in", "success", "", "jane"),
            ("sign-in", "failure", "wrong_credentials", "jane"),
            ("sign-in", "failure", "not_found", ""),
        ]
        assert [e.provider for e in s.trail.events] == ["corp", "corp", "corp", ""]


async def test_who_cannot_be_written_down_is_not_let_in_and_the_token_is_gone(clock):
    async with running(clock) as s:
        s.trail.away = True
        with pytest.raises(errors.Unavailable, match="audit log"):
            await s.login()
        assert s.trail.told == [
            ("sign-in", "success", "", "ada"),
            ("revoke-token", "success", "not_written_down", "ada"),
        ]
        with pytest.raises(errors.NotFound):
            await s.hub.get(Token, s.trail.events[0].token)
        s.trail.full = True
        with pytest.raises(errors.Unavailable):
            await s.login()
        with pytest.raises(errors.Unavailable):
            await s.change(ADA, "ada", "another good password", current=PASSWORD)


async def test_signing_out_works_without_an_audit_log_and_is_told(clock):
    async with running(clock) as s:
        issued = await s.login()
        s.trail.full = True
        await s.sign_outs.revoke(m.TokenRevoke(identity=s.hub.envelope(ADA, token=issued.name)), MESSAGE)
        assert s.trail.told[-1] == ("revoke-token", "success", "sign_out", "ada")
        assert s.trail.events[-1].token == issued.name


async def test_passwords_and_tokens(clock):
    async with running(clock, bindings=(made.binding(EVE, "admin", everywhere=True),)) as s:
        token = (await s.login()).name
        with pytest.raises(errors.Denied):
            await s.change(ADA, "ada", "another good password", current="wrong", token=token)
        await s.change(ADA, "ada", "another good password", current=PASSWORD, token=token)
        await s.change(EVE, "ada", "yet another good password")
        with pytest.raises(errors.Denied):
            await s.change(BOB, "ada", "yet another good password")
        issued = await s.issue(BOB)
        assert s.trail.told[1:] == [
            ("change-password", "failure", "wrong_password", "ada"),
            ("change-password", "success", "own", "ada"),
            ("change-password", "success", "set_by_another", "ada"),
            ("change-password", "failure", "not_allowed", ""),
            ("issue-token", "success", "api", "bob"),
        ]
        assert [e.actor for e in s.trail.events[1:]] == ["ada", "ada", "eve", "bob", "bob"]
        assert s.trail.events[-1].token == issued.name
        text = " ".join(e.model_dump_json() for e in s.trail.events)
        assert "good password" not in text
        assert issued.token not in text


async def test_tokens_that_end_by_themselves_are_told(clock):
    async with running(clock) as s:
        await s.login()
        clock.forward(86400)
        assert await s.sweep() == {ADA.uid}
        assert s.trail.told[-1] == ("expire-token", "success", "expired", "ada")
        assert s.trail.events[-1].by == "hub"
