"""Who must change a password or set up a second factor first: no cluster until it is done, at once when it is, and open streams are cut."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from libs.common.resources.identity import User
from libs.common.resources.providers import LOCAL, IdentityProvider, IdentityProviderSpec
from tests.auth_proxy.conftest import Echo
from tests.auth_proxy.door import Door, meta

PODS = "/k8s/clusters/prod/api/v1/namespaces/default/pods"
WITHIN_S = 1.0


async def ask_for_codes(door: Door, asked: bool) -> None:
    spec = IdentityProviderSpec.model_validate(
        {"type": "local", "enabled": True, "local": {"require_one_time_code": asked}}
    )
    await door.put(IdentityProvider(metadata=meta(LOCAL), spec=spec))


async def owe(door: Door, person: User, what: str) -> None:
    if what == "password":
        person.status.must_change_password = True
        await door.put(person)
    else:
        await ask_for_codes(door, True)


async def do(door: Door, person: User, what: str) -> None:
    if what == "password":
        person.status.must_change_password = False
    else:
        person.status.second_factor = True
    await door.put(person)


async def ada(door: Door, purpose: str) -> tuple[User, str]:
    await door.member()
    person = await door.user("ada")
    return person, await door.token(person, purpose=purpose, provider=LOCAL)


async def until(door: Door, token: str, status: int) -> str:
    loop = asyncio.get_running_loop()
    ends = loop.time() + WITHIN_S
    while (reply := await door.get(PODS, token)).status != status:
        assert loop.time() < ends, reply.raw
        await asyncio.sleep(0.02)
    return reply.message if status >= 400 else ""


@pytest.mark.parametrize("purpose", ["login", "exec"])
@pytest.mark.parametrize("what", ["password", "secondFactor"])
async def test_no_cluster_before_it_is_done_and_at_once_when_it_is(door: Door, echo: Echo, what: str, purpose: str):
    person, token = await ada(door, purpose)
    async with door.agent("prod", echo.address):
        await until(door, token, 200)
        await owe(door, person, what)
        assert "nothing else is allowed" in await until(door, token, 403)
        heads = len(echo.heads)
        assert (await door.get(PODS, token, method="POST", body=b"{}")).status == 403
        assert len(echo.heads) == heads
        await do(door, person, what)
        await until(door, token, 200)


async def test_a_token_of_a_file_is_good_until_it_ends_when_codes_are_asked_for_later(door: Door, echo: Echo):
    _, token = await ada(door, "kubeconfig")
    async with door.agent("prod", echo.address):
        await ask_for_codes(door, True)
        await door.settle("identity", "identityproviders")
        assert (await door.get(PODS, token)).status == 200


@pytest.mark.parametrize("what", ["password", "secondFactor"])
async def test_an_open_watch_is_cut_within_a_second(door: Door, echo: Echo, what: str):
    person, token = await ada(door, "login")
    async with door.agent("prod", echo.address):
        reader, writer = await door.connect()
        writer.write(f"GET {PODS}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            await reader.readuntil(b"event\r\n")
        await owe(door, person, what)
        async with asyncio.timeout(WITHIN_S):
            with contextlib.suppress(ConnectionError):
                assert not (await reader.read()).endswith(b"0\r\n\r\n"), "a torn stream must not look complete"
        writer.close()
