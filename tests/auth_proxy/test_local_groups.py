"""Groups of the hub itself: their roles count at the door on the next call, and open streams are cut within a second of being taken out."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from libs.common.resources.access import BindingScope, RoleTemplateBinding, RoleTemplateBindingSpec
from libs.common.resources.identity import Group
from tests.auth_proxy.conftest import Echo
from tests.auth_proxy.door import Door, meta

PODS = "/k8s/clusters/prod/api/v1/namespaces/default/pods"
WITHIN_S = 1.0


async def fill(door: Door, **members: str) -> None:
    made = Group.model_validate(
        {"metadata": meta("ops", "g1"), "spec": {"members": list(members)}, "private": {"uids": members}}
    )
    await door.put(made)


async def prepare(door: Door) -> tuple[str, str]:
    """Ada's token and uid; the group has a role in the cluster, and she is not in it."""
    person = await door.user("ada")
    await door.role()
    await door.cluster("prod")
    await fill(door)
    spec = RoleTemplateBindingSpec(principal="local:group:g1", role="cluster-owner", scope=BindingScope(cluster="prod"))
    await door.put(RoleTemplateBinding(metadata=meta("ops"), spec=spec))
    return await door.token(person), person.uid


async def until(door: Door, token: str, status: int):
    loop = asyncio.get_running_loop()
    ends = loop.time() + WITHIN_S
    while (reply := await door.get(PODS, token)).status != status:
        assert loop.time() < ends, reply.raw
        await asyncio.sleep(0.02)
    return reply


async def test_who_is_let_in_has_the_groups_role_and_who_is_taken_out_has_not(door: Door, echo: Echo):
    token, uid = await prepare(door)
    async with door.agent("prod", echo.address):
        assert (await door.get(PODS, token)).status == 403
        await fill(door, ada=uid)
        reply = await until(door, token, 200)
        assert "Impersonate-Group: herdsman:cluster:prod:cluster-owner" in json.loads(reply.body)["head"]
        await fill(door, ada="somebody-else-of-that-name")
        await until(door, token, 403)


@pytest.mark.parametrize("how", ["taken out", "group deleted"])
async def test_open_streams_are_cut_within_a_second(door: Door, echo: Echo, how: str):
    token, uid = await prepare(door)
    await fill(door, ada=uid)
    async with door.agent("prod", echo.address):
        await until(door, token, 200)
        reader, writer = await door.connect()
        writer.write(f"GET {PODS}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            await reader.readuntil(b"event\r\n")
        await (fill(door) if how == "taken out" else door.remove(Group, "ops"))
        async with asyncio.timeout(WITHIN_S):
            with contextlib.suppress(ConnectionError):
                assert not (await reader.read()).endswith(b"0\r\n\r\n"), "a torn stream must not look complete"
        writer.close()
