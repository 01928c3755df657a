"""The Active Directory provider against a real domain controller."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import pytest_asyncio

from integration.identity import samba
from integration.identity.samba import Controller
from libs.common import errors
from services.identity.providers.ldap.provider import LdapProvider
from tests.identity.conformance import *  # noqa: F403 - the suite
from tests.identity.conformance import Site

pytestmark = [
    pytest.mark.skipif(bool(samba.why_not()), reason=samba.why_not()),
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]
PASSWORD = "Passw0rd.Jane"
NESTED = 10


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def controller(tmp_path_factory):
    async with samba.running(tmp_path_factory.mktemp("dc")) as made:
        await asyncio.to_thread(fill, made)
        await made.start()
        yield made


def fill(made: Controller) -> None:
    made.user("jane", PASSWORD, "--mail-address=jane@corp.example")
    made.user("john", PASSWORD)
    made.user("left", PASSWORD)
    made.tool("user", "disable", "left")
    made.user("old", PASSWORD)
    made.tool("user", "setexpiry", "old", "--days=-1")
    made.user("fresh", PASSWORD, "--must-change-at-next-login")
    made.group("level-0", ["jane"])
    for n in range(1, NESTED + 1):
        made.group(f"level-{n}", [f"level-{n - 1}"])


@contextlib.asynccontextmanager
async def provider_of(controller: Controller, **settings):
    provider = LdapProvider("corp", "activeDirectory", controller.settings(**settings))
    try:
        yield provider
    finally:
        await provider.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def site(controller):
    async with provider_of(controller) as provider:
        try:
            yield Site(provider, "jane", PASSWORD, provider.sign_in, controller.stop, disabled="left")
        finally:
            if controller.process is None:
                await controller.start()


async def test_nested_groups_and_the_primary_group_are_all_found(controller):
    async with provider_of(controller) as provider:
        jane = await provider.sign_in("jane", PASSWORD)
        names = {g.name for g in jane.groups}
        assert {f"level-{n}" for n in range(NESTED + 1)} | {"Domain Users"} <= names
        assert len(jane.id) == 36
        assert jane.email == "jane@corp.example"


@pytest.mark.parametrize("name", ["jane", "JANE", "CORP\\jane", "jane@corp.example"])
async def test_every_form_of_a_windows_name_is_the_same_account(controller, name):
    async with provider_of(controller) as provider:
        assert (await provider.sign_in(name, PASSWORD)).user_name == "jane"
    async with provider_of(controller, bind_dn="", bind_password="") as alone:
        assert (await alone.sign_in(name, PASSWORD)).user_name == "jane"


@pytest.mark.parametrize(("name", "says"), [("left", "disabled"), ("old", "expired"), ("fresh", "must change")])
async def test_accounts_that_may_not_sign_in_are_told_why_but_only_with_the_right_password(controller, name, says):
    async with provider_of(controller) as provider:
        with pytest.raises(errors.Denied, match=says):
            await provider.sign_in(name, PASSWORD)
        with pytest.raises(errors.Unauthenticated):
            await provider.sign_in(name, "Wrong.Passw0rd")
