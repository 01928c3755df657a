"""A right in one cluster is nothing in another: every person × every token × every cluster × every way to ask, decided as a table."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack

import pytest

from tests.auth_proxy.door import Door
from tests.auth_proxy.recorder import FORMS, Recorder, Scene, identity_lines

CLUSTERS = ("alpha", "beta", "gamma")
PEOPLE = {"ann": ("alpha",), "bob": ("beta",), "cat": ("alpha", "beta"), "eve": ()}
SCOPES: dict[str, tuple[str, ...]] = {
    "anywhere": (),
    "alpha only": ("alpha",),
    "beta and gamma": ("beta", "gamma"),
    "nowhere": ("zeta",),
}
READING = ("GET", "HEAD")
WAYS = [
    *itertools.product(["plain"], ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"]), *itertools.product(["websocket", "spdy"], ["GET", "POST"]),
]  # fmt: skip


async def ask(door: Door, cluster: str, token: str, form: str, method: str) -> int:
    lines = [*FORMS[form], f"Authorization: Bearer {token}"]
    head = [f"{method} /k8s/clusters/{cluster}/api/v1/pods HTTP/1.1", "Host: h", *lines]
    reader, writer = await door.connect()
    try:
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
        async with asyncio.timeout(10):
            return int((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
    finally:
        writer.close()


async def test_cve_2026_44945_a_right_in_one_cluster_is_nothing_in_another(door):
    """Also CVE-2022-21953 (the cluster of the path is what is authorised) and CVE-2019-14436."""
    async with AsyncExitStack() as stack:
        far: dict[str, Recorder] = {}
        await door.role()
        for cluster in CLUSTERS:
            await door.cluster(cluster)
            far[cluster] = recorder = Recorder()
            server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0)
            recorder.port = server.sockets[0].getsockname()[1]
            stack.callback(server.close)
            await stack.enter_async_context(door.agent(cluster, recorder.address))
        tokens: dict[tuple[str, str, bool], str] = {}
        for person, where in PEOPLE.items():
            user = await door.user(person)
            for cluster in where:
                await door.bind(user, cluster)
            for (scope, names), read_only in itertools.product(SCOPES.items(), (False, True)):
                tokens[person, scope, read_only] = await door.token(user, clusters=list(names), read_only=read_only)
        faults = []
        for (person, scope, read_only), token in tokens.items():
            for cluster in CLUSTERS:
                may = cluster in PEOPLE[person] and (not SCOPES[scope] or cluster in SCOPES[scope])
                # All ways where something is let through, one of each form elsewhere.
                ways = WAYS if may else zip(FORMS, ("POST", "GET", "POST"), strict=True)
                for form, method in ways:
                    wanted = 200 if may and (not read_only or (method in READING and form == "plain")) else 403
                    for recorder in far.values():
                        recorder.clear()
                    got = await ask(door, cluster, token, form, method)
                    arrived = {name: recorder.heads for name, recorder in far.items() if recorder.heads}
                    if got != wanted or set(arrived) != ({cluster} if wanted == 200 else set()):
                        faults.append((person, scope, read_only, cluster, form, method, got, arrived))
                    for head in arrived.get(cluster, []):
                        seen = identity_lines(head)
                        assert f"Impersonate-User: herdsman:{person}".encode() in seen
                        groups = [line for line in seen if line.startswith(b"Impersonate-Group")]
                        assert groups == [f"Impersonate-Group: herdsman:cluster:{cluster}:cluster-owner".encode()]
        assert not faults


async def test_cve_2026_44945_unknown_and_foreign_clusters_are_told_alike(scene: Scene):
    eve = await scene.door.token(await scene.door.user("eve"))
    foreign = await scene.say([], token=eve)
    unknown = await scene.say([], token=eve, target="/k8s/clusters/none/api/v1/secrets")
    assert foreign.status == unknown.status == 403
    assert foreign.body.replace(b"prod", b"none") == unknown.body


@pytest.mark.parametrize("path", ["/pods/x/exec?command=sh", "/pods/x/attach", "/pods/x/portforward?ports=80"])
@pytest.mark.parametrize("form", ["websocket", "spdy"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_cve_2024_52280_a_get_that_switches_protocols_is_create(scene, path, form, method):
    """KEP-4006: exec over WebSocket is a GET. It is written down as what it is, and a token for reading can't do it."""
    user = await scene.door.user("ada")
    reading = await scene.door.token(user, read_only=True)
    target = f"/k8s/clusters/prod/api/v1/namespaces/default{path}"
    assert (await scene.say(FORMS[form], target=target, method=method, token=reading)).status == 403
    assert not scene.upstream.heads
    await scene.say(FORMS[form], target=target, method=method)
    assert len(scene.upstream.heads) == 1
    complete = await scene.door.events(2, stage="ResponseComplete")
    assert [e["verb"] for e in complete] == ["create", "create"]


async def test_cve_2024_52280_watch_and_list_and_get_are_decided_alike(scene):
    eve = await scene.door.token(await scene.door.user("eve"))
    for query in (
        "",
        "?watch=true",
        "?watch=1",
        "?watch",
        "?watch=yes",
        "?w%61tch=true",
        "?resourceVersion=0&watch=true",
    ):
        for token, wanted in ((scene.token, 200), (eve, 403)):
            assert (
                await scene.say([], target=f"/k8s/clusters/prod/api/v1/secrets{query}", token=token)
            ).status == wanted
