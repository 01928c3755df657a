"""`--as` through the whole front door and an agent, in front of an API server that answers access reviews."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from libs.common.relay import impersonation
from libs.common.resources.access import RoleTemplateBinding
from tests.auth_proxy.judge import Judge, fields

POD = "/k8s/clusters/prod/api/v1/pods"
ADA = "herdsman:ada"


@pytest.fixture
async def judge():
    async with Judge().serving() as made:
        yield made


def identity(head):
    return [(name, value) for name, value in fields(head) if name.startswith("impersonate-")]


async def test_allowed_wish_is_what_the_cluster_sees_with_the_real_caller_in_the_extras(door, judge):
    token = await door.member()
    judge.rights = {
        (ADA, "users", "jane"), (ADA, "groups", "dev"), (ADA, "uids", "17"), (ADA, "userextras/example.com/why", "on call"),
    }  # fmt: skip
    async with door.agent("prod", judge.address):
        reply = await door.get(
            POD, token, "Impersonate-User: jane", "Impersonate-Group: dev", "Impersonate-Uid: 17",
            "Impersonate-Extra-Example.com%2fwhy: on call",
        )  # fmt: skip
    assert reply.status == 200, reply.raw
    uid = door.uids["user/ada"]
    name = token.split("_")[1]
    assert identity(judge.calls[0]) == [
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "17"),
        ("impersonate-extra-example.com%2fwhy", "on call"),
        ("impersonate-extra-herdsman-impersonator", ADA),
        ("impersonate-extra-herdsman-principal", f"local:user:{uid}"),
        ("impersonate-extra-herdsman-token", name),
    ]
    assert ("authorization", "Bearer sa-token") in fields(judge.calls[0])
    for head in judge.reviews:
        # Each question is asked as the caller, with the caller's groups.
        assert identity(head)[:2] == [("impersonate-user", ADA), ("impersonate-uid", uid)]
        assert ("impersonate-group", "herdsman:cluster:prod:cluster-owner") in identity(head)
    assert len(judge.asked) == 4


@pytest.mark.parametrize("missing", ["users", "groups", "uids", "userextras/scopes", "serviceaccounts"])
async def test_one_attribute_that_is_not_allowed_stops_the_call(door, judge, missing):
    token = await door.member()
    user = "system:serviceaccount:ns:robot" if missing == "serviceaccounts" else "jane"
    judge.rights = {
        (ADA, "users", "jane"), (ADA, "groups", "dev"), (ADA, "uids", "17"), (ADA, "userextras/scopes", "all"),
        (ADA, "serviceaccounts", "ns/robot"),
    }  # fmt: skip
    wish = [
        f"Impersonate-User: {user}",
        "Impersonate-Group: dev",
        "Impersonate-Uid: 17",
        "Impersonate-Extra-Scopes: all",
    ]
    async with door.agent("prod", judge.address):
        assert (await door.get(POD, token, *wish)).status == 200
        judge.rights = {right for right in judge.rights if right[1] != missing}
        reply = await door.get(POD, token, *wish)
    assert reply.status == 403
    assert f'User "{ADA}" cannot impersonate resource "{missing}"' in reply.message
    assert len(judge.calls) == 1


async def test_right_that_is_taken_away_in_the_cluster_is_gone_with_the_next_call(door, judge):
    token = await door.member()
    judge.rights = {(ADA, "users", "jane")}
    async with door.agent("prod", judge.address):
        assert (await door.get(POD, token, "Impersonate-User: jane")).status == 200
        judge.rights.clear()
        assert (await door.get(POD, token, "Impersonate-User: jane")).status == 403


RESERVED = [
    ["Impersonate-User: system:admin"],
    ["Impersonate-User: system:node:edge"],
    ["Impersonate-User: system:serviceaccount:kube-system:x"],
    ["Impersonate-User: system:serviceaccount:herdsman-system:herdsman-agent"],
    ["Impersonate-User: jane", "Impersonate-Group: system:masters"],
    ["Impersonate-User: jane", "Impersonate-Group: SYSTEM:MASTERS"],
    ["Impersonate-User: jane", "Impersonate-Group: system:nodes"],
    ["Impersonate-User: jane", "Impersonate-Extra-herdsman%2Dimpersonator: herdsman:eve"],
    ["Impersonate-User: jane", "Impersonate-Extra-Herdsman-Token: x"],
]


@pytest.mark.parametrize("lines", RESERVED)
async def test_reserved_identity_is_refused_by_the_hub_before_any_review(door, judge, lines):
    token = await door.member()
    async with door.agent("prod", judge.address):
        reply = await door.get(POD, token, *lines)
    assert reply.status == 403
    assert not judge.reviews
    assert not judge.calls


@pytest.mark.parametrize("lines", RESERVED)
async def test_reserved_identity_is_refused_by_the_agent_whatever_the_hub_lets_through(door, judge, lines, monkeypatch):
    token = await door.member()
    real = impersonation.check_reserved
    monkeypatch.setattr(
        impersonation, "check_reserved", lambda wish, *rest: real(wish, *rest) if rest else None
    )  # the hub's call has one argument, the terminal's has two
    async with door.agent("prod", judge.address):
        reply = await door.get(POD, token, *lines)
    assert reply.status == 403
    assert not judge.reviews
    assert not judge.calls


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Impersonate-Group: dev"], 400),
        (["Impersonate-Uid: 1"], 400),
        (["Impersonate-User: a", "Impersonate-User: b"], 400),
        (["Impersonate-User:"], 400),
        (["Impersonate-As-User: jane"], 400),
        (["Impersonate-User: jane", "Impersonate-As-User: eve"], 400),
        (["Impersonate-User: jane", "Connection: Impersonate-User"], 400),
        (["Impersonate-User: jane", "Herdsman-As-User: eve"], 400),
        (["Impersonate-User: jane", "X-Remote-User: eve"], 400),
    ],
)
async def test_malformed_wish_goes_nowhere(door, judge, lines, status):
    token = await door.member()
    async with door.agent("prod", judge.address):
        reply = await door.talk(
            "\r\n".join([f"GET {POD} HTTP/1.1", "Host: h", f"Authorization: Bearer {token}", *lines, "", ""]).encode(),
            timeout_s=5,
        ) if "Connection: Impersonate-User" in lines else await door.get(POD, token, *lines)  # fmt: skip
    assert reply.status == status
    assert not judge.reviews
    assert not judge.calls


async def test_wish_needs_a_good_token_and_a_role_first(door, judge):
    await door.member()
    eve = await door.token(await door.user("eve"))
    async with door.agent("prod", judge.address):
        assert (await door.get(POD, "", "Impersonate-User: jane")).status == 401
        assert (await door.get(POD, eve, "Impersonate-User: jane")).status == 403
    assert not judge.reviews


async def test_reading_token_may_read_as_somebody_and_no_more(door, judge):
    await door.member()
    token = await door.token(await door.user("ada"), read_only=True)
    judge.rights = {(ADA, "users", "jane")}
    async with door.agent("prod", judge.address):
        assert (await door.get(POD, token, "Impersonate-User: jane")).status == 200
        assert (await door.get(POD, token, "Impersonate-User: jane", method="POST", body=b"{}")).status == 403


async def test_hubs_own_api_knows_nobody_else(door):
    token = await door.member()
    reply = await door.get("/apis/management.herdsman.dev/v1/clusters", token, "Impersonate-User: jane")
    assert reply.status == 403
    assert "nobody can be impersonated in the hub's own API" in reply.message


def answer(line: str, body: str = "") -> bytes:
    return f"HTTP/1.1 {line}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("reply", "status", "text"),
    [
        (answer("403 Forbidden", "{}"), 403, "system:basic-user"),
        (answer("500 Oops"), 502, "status 500"),
        (answer("401 Unauthorized"), 502, "status 401"),
        (answer("200 OK", '{"status":{"allowed":true}}'), 502, "status 200"),
        (answer("201 Created", "{}"), 502, "something else"),
        (answer("201 Created", "null"), 502, "something else"),
        (answer("201 Created", '{"status":null}'), 502, "something else"),
        (answer("201 Created", '{"status":' + "[" * 100_000), 502, "something else"),
        (answer("201 Created", '{"status":{}}'), 403, "forbidden"),
        (answer("201 Created", '{"status":{"allowed":"true"}}'), 403, "forbidden"),
        (answer("201 Created", '{"status":{"allowed":true,"denied":true}}'), 403, "forbidden"),
        (b"HTTP/1.1 201 Created\r\n\r\n{}", 502, "no length"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n", 502, "no final answer"),
        (b"nonsense\r\n\r\n", 502, "not HTTP/1.1"),
    ],
)
async def test_review_without_a_plain_yes_is_no(door, judge, reply, status, text):
    token = await door.member()
    judge.answer = reply
    async with door.agent("prod", judge.address):
        got = await door.get(POD, token, "Impersonate-User: jane")
    assert (got.status, text in got.message) == (status, True), got.raw
    assert not judge.calls


async def test_review_may_come_in_chunks_and_the_body_of_the_call_waits_for_it(door, judge):
    token = await door.member()
    judge.rights = {(ADA, "users", "jane")}
    judge.chunked = True
    async with door.agent("prod", judge.address):
        reply = await door.get(POD, token, "Impersonate-User: jane", method="POST", body=b"x" * 300_000)
    assert reply.status == 200
    assert json.loads(reply.body)["body"] == "x" * 300_000


async def test_exec_and_watch_under_a_wish_are_streams_like_others_and_end_with_the_callers_rights(door, judge):
    person = await door.user("ada")
    await door.role()
    await door.cluster("prod")
    binding = await door.bind(person, "prod")
    token = await door.token(person)
    judge.rights = {(ADA, "users", "jane")}
    async with door.agent("prod", judge.address):
        ended = []
        for request in (f"GET {POD}?watch=true HTTP/1.1\r\nHost: h\r\n", f"POST {POD}/x/exec HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"):  # fmt: skip
            reader, writer = await door.connect()
            writer.write(f"{request}Authorization: Bearer {token}\r\nImpersonate-User: jane\r\n\r\n".encode())
            async with asyncio.timeout(5):
                await reader.readuntil(b"event\r\n" if "watch" in request else b"\r\n\r\n")
                if "exec" in request:
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"
            ended.append((reader, writer))
        await door.remove(RoleTemplateBinding, binding)
        for reader, writer in ended:
            async with asyncio.timeout(3):
                try:
                    await reader.read()
                except ConnectionError:
                    writer.close()
            writer.close()
    assert all(identity(head)[0] == ("impersonate-user", "jane") for head in judge.calls)


async def test_agent_that_is_too_old_to_know_wishes_refuses_instead_of_calling_as_the_caller():
    """What an agent of the first protocol does with the hub's lines: its list of known headers ends in a refusal."""
    lines = impersonation.render(impersonation.Wish("jane", ("dev",), "1", (("k", "v"),)), impersonation.FROM_HUB)
    known = (b"impersonate-user:", b"impersonate-group:", b"impersonate-uid:", b"impersonate-extra-")
    for line in lines:
        assert line.lower().startswith(b"impersonate-")
        assert not line.lower().startswith(known)


async def test_rights_in_one_cluster_never_count_in_another(door):
    """Property over (caller, cluster where it is allowed, cluster where it is used): used where it is allowed, or not at all."""
    rng = random.Random(44945)
    users = ["ada", "bob", "eve"]
    names = ["jane", "jim"]
    judges = {name: Judge(name) for name in ("east", "west", "north")}
    await door.role()
    tokens = {}
    for user in users:
        person = await door.user(user)
        for cluster in judges:
            await door.cluster(cluster)
            await door.bind(person, cluster)
        tokens[user] = await door.token(person)
    async with asyncio.TaskGroup() as tasks:
        stop = asyncio.Event()
        ready = asyncio.Semaphore(0)

        async def serve(cluster, judge):
            async with judge.serving(), door.agent(cluster, judge.address, b"Bearer " + cluster.encode(), idle=1):
                ready.release()
                await stop.wait()

        for cluster, judge in judges.items():
            tasks.create_task(serve(cluster, judge))
        for _ in judges:
            await ready.acquire()
        try:
            for _ in range(60):
                allowed = [(rng.choice(users), rng.choice(list(judges)), rng.choice(names)) for _ in range(3)]
                for cluster, judge in judges.items():
                    judge.rights = {(f"herdsman:{u}", "users", n) for u, c, n in allowed if c == cluster}
                caller, used, name = rng.choice(users), rng.choice(list(judges)), rng.choice(names)
                before = {c: len(j.calls) for c, j in judges.items()}
                asked = {c: len(j.reviews) for c, j in judges.items()}
                reply = await door.get(f"/k8s/clusters/{used}/api/v1/pods", tokens[caller], f"Impersonate-User: {name}")
                granted = (caller, used, name) in allowed
                assert reply.status == (200 if granted else 403), (caller, used, name, allowed)
                for cluster, judge in judges.items():
                    assert len(judge.calls) - before[cluster] == (granted and cluster == used)
                    assert len(judge.reviews) - asked[cluster] == (cluster == used)
        finally:
            stop.set()
