"""On a connection whose requests repeat their fields: what was found out once is used only as long as it holds."""

from __future__ import annotations

import json

import pytest

from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import Token

PATH = "/k8s/clusters/prod/api/v1/pods"


class Client:
    """One kept connection; every request has the same fields."""

    def __init__(self, reader, writer, token: str) -> None:
        self._reader, self._writer, self._token = reader, writer, token

    async def get(self, path: str = PATH) -> tuple[int, dict]:
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {self._token}\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split(b" ")[1]), json.loads(await self._reader.readexactly(size))


@pytest.fixture
async def client(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        reader, writer = await door.connect()
        yield Client(reader, writer, token)
        writer.close()


def name_of(token: str) -> str:
    return token.split("_")[1]


async def test_every_request_has_its_own_target_and_the_identity(client):
    for number in range(3):
        code, echoed = await client.get(f"{PATH}/p{number}")
        assert code == 200
        assert echoed["head"].startswith(f"GET /api/v1/pods/p{number} HTTP/1.1\r\n")
        assert echoed["head"].count("Impersonate-User: herdsman:ada\r\n") == 1
        assert "hm_" not in echoed["head"]


async def test_a_revoked_token_is_refused_on_the_very_next_request(client, door):
    assert (await client.get())[0] == 200
    await door.remove(Token, name_of(client._token))
    assert (await client.get())[0] == 401


async def test_a_disabled_user_is_refused_on_the_very_next_request(client, door):
    assert (await client.get())[0] == 200
    await door.user("ada", enabled=False)
    assert (await client.get())[0] == 401


async def test_a_lost_role_is_noticed_on_the_very_next_request(door, echo):
    person = await door.user("bob")
    await door.role()
    await door.cluster("prod")
    binding = await door.bind(person, "prod")
    async with door.agent("prod", echo.address):
        reader, writer = await door.connect()
        client = Client(reader, writer, await door.token(person))
        assert (await client.get())[0] == 200
        await door.remove(RoleTemplateBinding, binding)
        assert (await client.get())[0] == 403
        writer.close()


async def test_an_expired_token_is_refused_on_the_very_next_request(door, echo):
    person = await door.user("bob")
    await door.role()
    await door.cluster("prod")
    await door.bind(person, "prod")
    async with door.agent("prod", echo.address):
        reader, writer = await door.connect()
        client = Client(reader, writer, await door.token(person, ttl_s=1.0))
        codes = [(await client.get())[0]]
        while codes[-1] == 200:
            codes.append((await client.get())[0])
        writer.close()
    assert set(codes[:-1]) == {200}
    assert codes[-1] == 401


async def test_a_cluster_made_again_is_another_cluster(client, door):
    assert (await client.get())[0] == 200
    await door.remove(Cluster, "prod")
    assert (await client.get())[0] == 403
