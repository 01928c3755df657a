"""Calls to a cluster through the whole front door, over TLS, through a reverse connection, to an echoing API server."""

from __future__ import annotations

import asyncio
import json

import pytest

from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import Token

POD = "/k8s/clusters/prod/api/v1/namespaces/default/pods"


async def test_call_reaches_the_cluster_with_identity_and_the_agents_credential(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        reply = await door.get(
            POD + "?limit=5&x=%2F", token, "Accept: application/json", "Cookie: a=b", "X-Forwarded-For: 1.2.3.4"
        )
    assert reply.status == 200
    seen = json.loads(reply.body)["head"]
    assert seen.startswith("GET /api/v1/namespaces/default/pods?limit=5&x=%2F HTTP/1.1\r\n")
    assert "Impersonate-User: herdsman:ada\r\n" in seen
    assert "Impersonate-Group: herdsman:cluster:prod:cluster-owner\r\n" in seen
    assert "Authorization: Bearer sa-token\r\n" in seen
    assert "Accept: application/json\r\n" in seen
    for absent in ("Cookie", "X-Forwarded", "hm_"):
        assert absent not in seen


@pytest.mark.parametrize(
    "credential", ["", "Bearer", "Bearer  ", "Basic YTpi", "Bearer hm_x_y", "Bearer hm_", "Bearer x", "bearer hm__"]
)
async def test_no_or_bad_credential_is_401(door, echo, credential):
    await door.member()
    lines = [f"Authorization: {credential}"] if credential else []
    async with door.agent("prod", echo.address):
        reply = await door.get(POD, "", *lines)
    assert reply.status == 401
    assert b"WWW-Authenticate: Bearer" in reply.head
    assert not echo.heads


async def test_right_name_with_wrong_secret_is_401(door):
    token = await door.member()
    assert (await door.get(POD, token[:-1] + ("A" if token[-1] != "A" else "B"))).status == 401


async def test_strangers_get_the_same_answer_for_foreign_and_for_unknown_clusters(door):
    await door.member()
    eve = await door.token(await door.user("eve"))
    foreign = await door.get(POD, eve)
    unknown = await door.get(POD.replace("prod", "nope"), eve)
    assert (foreign.status, unknown.status) == (403, 403)
    assert foreign.message == unknown.message.replace("nope", "prod")


async def test_tokens_scope_is_kept(door, echo):
    token = await door.member()
    ada = await door.user("ada")
    elsewhere = await door.token(ada, clusters=["other"])
    reading = await door.token(ada, read_only=True)
    async with door.agent("prod", echo.address):
        assert (await door.get(POD, token, method="POST", body=b"{}")).status == 200
        assert (await door.get(POD, elsewhere)).status == 403
        assert (await door.get(POD, reading)).status == 200
        assert (await door.get(POD, reading, method="POST", body=b"{}")).status == 403
        upgrade = f"GET {POD}/x/exec HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer {reading}\r\n\r\n"
        assert (await door.talk(upgrade.encode())).status == 403


async def test_expired_token_is_refused(door):
    await door.member()
    token = await door.token(await door.user("ada"), ttl_s=-1)
    assert (await door.get(POD, token)).status == 401


async def test_user_made_again_under_the_same_name_inherits_nothing(door, echo):
    token = await door.member()
    await door.user("ada", uid="another")
    assert (await door.get(POD, token)).status == 401


async def test_disconnected_cluster_is_503_without_retry_after_and_says_since_when(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        assert (await door.get(POD, token)).status == 200
    await asyncio.sleep(0.05)
    reply = await door.get(POD, token)
    assert reply.status == 503
    assert b"Retry-After" not in reply.head
    assert "is not connected since 20" in reply.message


async def test_request_waits_for_an_agent_that_comes_back(door, echo):
    token = await door.member()
    waiting = asyncio.create_task(door.get(POD, token))
    await asyncio.sleep(0.2)
    async with door.agent("prod", echo.address):
        assert (await waiting).status == 200


async def test_many_parallel_calls_grow_the_number_of_connections(door, echo, eventually):
    token = await door.member()
    async with door.agent("prod", echo.address, idle=2) as agent:
        watches = [await door.connect() for _ in range(10)]
        for reader, writer in watches:
            writer.write(f"GET {POD}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"event\r\n"), 5)
        assert agent.serving == 10
        replies = await asyncio.gather(*(door.get(POD, token) for _ in range(20)))
        assert {r.status for r in replies} == {200}
        for _, writer in watches:
            writer.close()
        await eventually(lambda: not agent.serving)


async def test_exec_is_spliced_through_door_and_agent(door, echo, eventually):
    token = await door.member()
    async with door.agent("prod", echo.address) as agent:
        reader, writer = await door.connect()
        writer.write(
            f"POST {POD}/x/exec?command=sh HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
            f"X-Stream-Protocol-Version: v4\r\nX-Stream-Protocol-Version: v3\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        assert b"101 Switching" in await reader.readuntil(b"\r\n\r\n")
        data = b"z" * 3_000_000
        writer.write(data)
        assert await asyncio.wait_for(reader.readexactly(len(data)), 10) == data
        writer.close()
        await eventually(lambda: not agent.serving)
    assert echo.heads[0].count(b"X-Stream-Protocol-Version") == 2
    assert echo.heads[0].count(b"Impersonate-User: herdsman:ada") == 1


@pytest.mark.parametrize(
    "change",
    ["user disabled", "token revoked", "binding removed", "cluster deleted", "token expired", "user made again"],
)
async def test_lost_right_cuts_open_streams_within_a_second(door, echo, change):
    person = await door.user("ada")
    await door.role()
    await door.cluster("prod")
    binding = await door.bind(person, "prod")
    token = await door.token(person, "mine", ttl_s=1.2 if change == "token expired" else 3600)
    async with door.agent("prod", echo.address):
        reader, writer = await door.connect()
        writer.write(f"GET {POD}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        await asyncio.wait_for(reader.readuntil(b"event\r\n"), 5)
        before = asyncio.get_running_loop().time()
        match change:
            case "user disabled":
                await door.user("ada", enabled=False)
            case "token revoked":
                await door.remove(Token, "mine")
            case "binding removed":
                await door.remove(RoleTemplateBinding, binding)
            case "cluster deleted":
                await door.remove(Cluster, "prod")
            case "user made again":
                await door.user("ada", uid="somebody-else")
        try:
            rest = await asyncio.wait_for(reader.read(), 3)
        except ConnectionError:
            rest = b""
        assert not rest.endswith(b"0\r\n\r\n")
        assert asyncio.get_running_loop().time() - before < (2.5 if change == "token expired" else 1.0)
        writer.close()
        assert (await door.get(POD, token)).status in (401, 403)


async def test_added_right_cuts_nothing_and_counts_on_the_next_call(door, echo):
    token = await door.member()
    person = await door.user("ada")
    async with door.agent("prod", echo.address):
        reader, writer = await door.connect()
        writer.write(f"GET {POD}?watch=true HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        await asyncio.wait_for(reader.readuntil(b"event\r\n"), 5)
        await door.role("cluster-viewer")
        await door.bind(person, "prod", "cluster-viewer")
        reply = await door.get(POD, token)
        assert b"herdsman:cluster:prod:cluster-viewer" in reply.body
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), 0.8)
        writer.close()


async def test_calls_are_audited_the_denied_ones_too_and_without_secrets(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        await door.get(POD + "?secret=query", token)
        await door.get(POD, "hm_no_no")
    events = await door.events(2)
    assert [
        (e["user"]["username"], e["verb"], e["responseStatus"]["code"], e["annotations"]["audit.herdsman.dev/cluster"])
        for e in events
    ] == [("ada", "list", 200, "prod"), ("system:anonymous", "list", 401, "prod")]
    text = door.audit_file.read_text()
    assert token.split("_", 2)[2] not in text
    assert "secret=query" not in text
