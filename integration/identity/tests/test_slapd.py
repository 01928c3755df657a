"""The LDAP provider against a real OpenLDAP."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from integration.identity import slapd
from integration.identity.slapd import Slapd, group, group_dn, person, user_dn
from libs.common import errors
from services.identity.providers.base import Gone
from services.identity.providers.ldap.provider import LdapProvider
from tests.conftest import no_task_is_left_behind
from tests.identity.conformance import *  # noqa: F403 - the suite
from tests.identity.conformance import Site

__all__ = ["no_task_is_left_behind"]
pytestmark = [pytest.mark.skipif(bool(slapd.why_not()), reason=slapd.why_not()), pytest.mark.timeout(120)]
PASSWORD = "correct horse"
NESTED = 10


def content() -> str:
    chain = [group("level-0", [user_dn("jane")])]
    chain += [group(f"level-{n}", [group_dn(f"level-{n - 1}")]) for n in range(1, NESTED + 1)]
    cycle = [group("ring-a", [group_dn("ring-b"), user_dn("ring")]), group("ring-b", [group_dn("ring-a")])]
    people = [person(name, PASSWORD) for name in ("jane", "john", "ring", "expired")]
    people[-1] = person("expired", PASSWORD, shadowExpire="1")
    return "".join([*people, *chain, *cycle, group("staff", map(user_dn, ("jane", "john")))])


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with slapd.running(tmp_path_factory.mktemp("slapd"), content()) as server:
        yield server


@contextlib.asynccontextmanager
async def provider_of(server: Slapd, **settings):
    provider = LdapProvider("corp", "ldap", server.settings(**settings))
    try:
        yield provider
    finally:
        await provider.aclose()


@pytest.fixture
async def site(shared):
    async with provider_of(shared) as provider:

        async def break_it() -> None:
            shared.stop()

        try:
            yield Site(provider, "jane", PASSWORD, provider.sign_in, break_it, disabled="expired")
        finally:
            if shared.process is None:
                shared.start()


async def test_nested_groups_are_all_found_and_a_ring_of_groups_once(shared):
    async with provider_of(shared) as provider:
        jane = await provider.sign_in("jane", PASSWORD)
        assert {g.name for g in jane.groups} == {f"level-{n}" for n in range(NESTED + 1)} | {"staff"}
        assert {g.name for g in (await provider.sign_in("ring", PASSWORD)).groups} == {"ring-a", "ring-b"}
    async with provider_of(shared, nested_groups=False) as flat:
        assert {g.name for g in (await flat.sign_in("jane", PASSWORD)).groups} == {"level-0", "staff"}


async def test_more_groups_than_allowed_are_told(shared):
    async with provider_of(shared, max_groups=5) as provider:
        jane = await provider.sign_in("jane", PASSWORD)
        assert len(jane.groups) == 5
        assert "more than 5 groups" in jane.truncated


async def test_an_id_outlives_a_rename_and_a_deleted_account_is_gone(shared):
    shared.modify(
        f"dn: {user_dn('temp')}\nchangetype: add\n" + person("temp", PASSWORD).partition("\n")[2].partition("\n")[2]
    )
    async with provider_of(shared) as provider:
        before = await provider.sign_in("temp", PASSWORD)
        shared.modify(f"dn: {user_dn('temp')}\nchangetype: modrdn\nnewrdn: uid=other\ndeleteoldrdn: 1\n")
        assert (await provider.refresh(before.id, "")).user_name == "other"
        shared.modify(f"dn: {user_dn('other')}\nchangetype: delete\n")
        with pytest.raises(Gone):
            await provider.refresh(before.id, "")


async def test_people_may_bind_themselves_where_there_is_no_service_account(shared):
    async with provider_of(shared, bind_dn="", bind_password="") as provider:
        await provider.test()
        assert (await provider.sign_in("jane", PASSWORD)).user_name == "jane"
        for name in ("nobody", "jane,ou=x", "*"):
            with pytest.raises(errors.Unauthenticated):
                await provider.sign_in(name, PASSWORD)


async def test_passwords_cross_no_network_in_plain_text_unless_said(shared):
    async with provider_of(shared, servers=[shared.ldap]) as provider:
        with pytest.raises(errors.Invalid, match="not encrypted"):
            await provider.sign_in("jane", PASSWORD)
    async with provider_of(shared, servers=[shared.ldap], allow_plain_text=True) as provider:
        assert await provider.sign_in("jane", PASSWORD)
    async with provider_of(shared, servers=[shared.ldap], start_tls=True) as provider:
        assert await provider.sign_in("jane", PASSWORD)


async def test_only_the_pinned_authority_is_trusted_and_only_for_the_name(shared, tmp_path):
    with slapd.running(tmp_path / "other", "", names=("elsewhere.example",)) as other:
        async with provider_of(other) as wrong_name:
            with pytest.raises(errors.Unavailable, match="for another name"):
                await wrong_name.test()
        async with provider_of(shared, ca=other.ca) as wrong_ca:
            with pytest.raises(errors.Unavailable, match="not signed by an authority"):
                await wrong_ca.test()
        async with provider_of(shared, ca="") as system:
            with pytest.raises(errors.Unavailable, match="not signed by an authority"):
                await system.test()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"bind_password": "wrong"}, "bindDn with bindPassword"),
        ({"user_base": "ou=nowhere,dc=example,dc=org"}, "no person was found"),
        ({"user_id_attribute": "employeeNumber"}, "userIdAttribute"),
    ],
)
async def test_the_test_says_which_setting_to_change(shared, settings, says):
    async with provider_of(shared, **settings) as provider:
        with pytest.raises(errors.Invalid, match=says):
            await provider.test()


async def test_a_password_of_ours_that_was_refused_is_not_tried_again_for_a_while(tmp_path):
    with slapd.running(tmp_path / "slapd", content()) as server:
        async with provider_of(server, bind_password="the next one") as provider:
            with pytest.raises(errors.Unavailable, match="refuses our own account"):
                await provider.sign_in("jane", PASSWORD)
            replace = "changetype: modify\nreplace: userPassword\nuserPassword: the next one\n"
            server.modify(f"dn: {slapd.SERVICE}\n{replace}")
            with pytest.raises(errors.Unavailable, match="refuses our own account"):
                await provider.sign_in("jane", PASSWORD)
        async with provider_of(server, bind_password="the next one") as provider:
            assert (await provider.sign_in("jane", PASSWORD)).user_name == "jane"


async def test_another_server_answers_when_the_first_is_dead_or_silent(shared):
    async with _silent_server() as silent:
        dead = "ldaps://localhost:1"
        async with provider_of(shared, servers=[dead, silent, shared.ldaps], timeout_seconds=1) as provider:
            assert await provider.sign_in("jane", PASSWORD)
            async with asyncio.timeout(1):
                # Those that failed come last for a while.
                assert await provider.sign_in("john", PASSWORD)


async def test_a_server_that_says_nothing_holds_nobody(shared):
    async with (
        _silent_server() as silent,
        provider_of(shared, servers=[silent], timeout_seconds=30, deadline_seconds=2) as provider,
    ):
        with pytest.raises(errors.Unavailable, match="did not answer"):
            await provider.sign_in("jane", PASSWORD)


async def test_connections_that_died_while_they_rested_are_no_failure(shared):
    async with provider_of(shared) as provider:
        await asyncio.gather(*(provider.sign_in("jane", PASSWORD) for _ in range(8)))
        shared.stop()
        shared.start()
        assert await asyncio.gather(*(provider.sign_in("jane", PASSWORD) for _ in range(8)))


async def test_many_sign_ins_at_once_share_few_threads(shared):
    async with provider_of(shared) as provider:
        found = await asyncio.gather(*(provider.sign_in("jane", PASSWORD) for _ in range(50)))
        assert {i.id for i in found} == {found[0].id}


@contextlib.asynccontextmanager
async def _silent_server():
    """It accepts and says nothing, not even TLS."""
    listening = socket.create_server(("127.0.0.1", 0))
    try:
        yield f"ldaps://localhost:{listening.getsockname()[1]}"
    finally:
        listening.close()
