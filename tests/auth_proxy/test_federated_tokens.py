"""Tokens of workloads at the door: good while their credential is, and cut with it within a second."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from libs.common.access.federation import origin_of
from libs.common.resources.federation import FederatedCredential
from tests.auth_proxy.conftest import Echo
from tests.auth_proxy.door import Door, meta

PODS = "/k8s/clusters/prod/api/v1/namespaces/default/pods"
WITHIN_S = 1.0


def credential(user, uid: str = "uid-shop", **spec: object) -> FederatedCredential:
    wanted = {
        "user": user.name, "userUid": user.uid, "issuer": "https://issuer.example", "audiences": ["hub"], "subject": "job", **spec,
    }  # fmt: skip
    return FederatedCredential.model_validate({"metadata": meta("shop", uid), "spec": wanted})


async def prepare(door: Door):
    bot = await door.user("bot")
    await door.put(credential(bot))
    await door.role()
    await door.cluster("prod")
    await door.bind(bot, "prod")
    return bot, await door.token(bot, provider=origin_of(credential(bot)), purpose="federated", read_only=True)


async def test_a_workloads_token_is_its_users_and_no_more_than_it_says(door: Door, echo: Echo):
    _, token = await prepare(door)
    async with door.agent("prod", echo.address):
        reply = await door.get(PODS, token)
        assert reply.status == 200
        assert "Impersonate-User: herdsman:bot" in json.loads(reply.body)["head"]
        assert (await door.get(PODS, token, method="POST", body=b"{}")).status == 403


@pytest.mark.parametrize("change", ["deleted", "disabled", "made again", "of another user"])
async def test_a_workloads_token_and_its_streams_end_with_the_credential(door: Door, echo: Echo, change: str):
    bot, token = await prepare(door)
    async with door.agent("prod", echo.address, idle=3):
        assert (await door.get(PODS, token)).status == 200
        reader, writer = await door.connect()
        writer.write(f"GET {PODS}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            await reader.readuntil(b"event\r\n")
        match change:
            case "deleted":
                await door.remove(FederatedCredential, "shop")
            case "disabled":
                await door.put(credential(bot, enabled=False))
            case "made again":
                await door.put(credential(bot, uid="uid-again"))
            case "of another user":
                await door.put(credential(await door.user("other")))
        async with asyncio.timeout(WITHIN_S):
            with contextlib.suppress(ConnectionError):
                await reader.read(-1)
            assert (await door.get(PODS, token)).status == 401
        writer.close()


async def test_a_token_that_names_no_credential_is_refused(door: Door, echo: Echo):
    bot, _ = await prepare(door)
    token = await door.token(bot, provider="federated:nothing:uid-shop", purpose="federated")
    async with door.agent("prod", echo.address):
        assert (await door.get(PODS, token)).status == 401
