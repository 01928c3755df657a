"""Revocation: whatever took the right away, an open watch, exec and port-forward are cut within a second, and nothing new begins."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest

from libs.common.resources.access import BindingScope, RoleTemplate, RoleTemplateBinding, RoleTemplateBindingSpec
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import Token, User
from tests.auth_proxy.conftest import Echo
from tests.auth_proxy.door import Door, meta

PODS = "/k8s/clusters/prod/api/v1/namespaces/default/pods"
WITHIN_S = 1.0
EXPIRES_S = 2.5
STREAMS = {
    "watch": (f"GET {PODS}?watch=true", []),
    "exec": (f"POST {PODS}/x/exec?command=sh", ["Connection: Upgrade", "Upgrade: SPDY/3.1"]),
    "port-forward": (f"GET {PODS}/x/portforward?ports=80", ["Connection: Upgrade", "Upgrade: SPDY/3.1"]),
    "log": (f"GET {PODS}/x/log?follow=true&watch=true", []),
}


async def take_away(door: Door, change: str) -> None:
    match change:
        case "token deleted":
            await door.remove(Token, "mine")
        case "user disabled":
            await door.user("ada", enabled=False)
        case "user deleted":
            await door.remove(User, "ada")
        case "user deleted and made again":
            await door.remove(User, "ada")
            await door.user("ada", uid="somebody-else")
        case "binding removed":
            await door.remove(RoleTemplateBinding, "bound")
        case "role deleted":
            await door.remove(RoleTemplate, "cluster-owner")
        case "cluster deleted":
            await door.remove(Cluster, "prod")
        case "cluster deleted and made again":
            await door.remove(Cluster, "prod")
            door.uids["cluster/prod"] = "another-cluster"
            await door.cluster("prod")


CHANGES = [
    "token deleted", "user disabled", "user deleted", "user deleted and made again", "binding removed", "role deleted", "cluster deleted",
    "cluster deleted and made again", "binding expired", "token expired",
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
async def test_cve_2023_22650_lost_right_cuts_open_streams_within_a_second(door: Door, echo: Echo, change):
    """Also GHSA-c45c-39f6-6gw9, CVE-2022-31677, CVE-2021-36775, CVE-2019-6287, CVE-2023-32199 and the watch of CVE-2024-52280."""
    person = await door.user("ada")
    await door.role()
    await door.cluster("prod")
    loop = asyncio.get_running_loop()
    async with door.agent("prod", echo.address, idle=6):
        soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=EXPIRES_S)
        binding = RoleTemplateBindingSpec(
            principal=f"local:user:{person.uid}", user="ada", role="cluster-owner",
            scope=BindingScope(cluster="prod", cluster_uid=door.uids["cluster/prod"]),
            not_after=soon if change == "binding expired" else None,
        )  # fmt: skip
        await door.put(RoleTemplateBinding(metadata=meta("bound"), spec=binding))
        token = await door.token(person, "mine", ttl_s=EXPIRES_S if change == "token expired" else 3600)
        open_streams = []
        for first, lines in STREAMS.values():
            reader, writer = await door.connect()
            head = [f"{first} HTTP/1.1", "Host: h", f"Authorization: Bearer {token}", *lines]
            writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
            async with asyncio.timeout(5):
                if lines:
                    assert b"101 Switching" in await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"echo")
                    await reader.readuntil(b"echo")
                else:
                    await reader.readuntil(b"event\r\n")
            open_streams.append((reader, writer))
        if change.endswith("expired"):
            took_effect = loop.time() + (soon - dt.datetime.now(dt.UTC)).total_seconds()
        else:
            await take_away(door, change)
            took_effect = loop.time()
        for reader, writer in open_streams:
            try:
                async with asyncio.timeout(5):
                    rest = await reader.read()
            except ConnectionError:
                rest = b""
            assert not rest.endswith(b"0\r\n\r\n"), "a torn stream must not look complete"
            writer.close()
        assert loop.time() - took_effect < WITHIN_S
        reply = await door.get(PODS, token)
        assert reply.status in (401, 403), reply.raw


async def test_cve_2023_22650_others_streams_are_left_alone(door: Door, echo: Echo):
    token = await door.member("ada")
    bob = await door.member("bob")
    async with door.agent("prod", echo.address, idle=3):
        reader, writer = await door.connect()
        writer.write(f"GET {PODS}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {bob}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            await reader.readuntil(b"event\r\n")
        await door.user("ada", enabled=False)
        assert (await door.get(PODS, token)).status == 401
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await reader.read()
        writer.close()
