"""Calls about namespaces by a member of projects wait for the cluster's word: what was taken away meanwhile counts no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.relay.pool import Address
from libs.common.resources.access import (
    BindingScope,
    PolicyRule,
    RoleTemplate,
    RoleTemplateBinding,
    RoleTemplateBindingSpec,
    RoleTemplateSpec,
)
from libs.common.resources.identity import Token
from libs.common.resources.projects import Project, ProjectNamespace, ProjectSpec
from services.auth_proxy.audit import AuditLog
from tests.auth_proxy.door import Door, meta
from tests.auth_proxy.judge import REVIEW, fields, listening

PATH = "/k8s/clusters/prod/api/v1/namespaces"


class Cluster:
    """An API server that gives its word about rights only when it is let, and tells who made the other calls."""

    def __init__(self, *, allowed: bool, word: bytes = b"") -> None:
        self.asked, self.release = asyncio.Event(), asyncio.Event()
        self.calls: list[bytes] = []
        self._word = word or json.dumps({"status": {"allowed": allowed}}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(dict(fields(head)).get("content-length", "0")))
            if head.startswith(REVIEW):
                self.asked.set()
                await self.release.wait()
                writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(self._word) + self._word)
            else:
                self.calls.append(head)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def member(door: Door) -> str:
    """Ada's token "mine": she has a role in a project with a namespace in "prod", and by the binding "bound" one of the cluster that says
    nothing of namespaces."""
    person = await door.user("ada")
    await door.cluster("prod")
    project = Project(
        metadata=meta("shop"), spec=ProjectSpec(namespaces=[ProjectNamespace(cluster="prod", namespace="web")])
    )
    await door.put(project)
    for role, scope, resource in (("viewer", "project", "namespaces"), ("extra", "cluster", "nodes")):
        rule = PolicyRule(verbs=["get", "list", "watch"], api_groups=[""], resources=[resource])
        await door.put(RoleTemplate(metadata=meta(role), spec=RoleTemplateSpec(scope=scope, rules=[rule])))
    binding = RoleTemplateBindingSpec(
        principal=f"local:user:{person.uid}", user="ada", role="viewer", scope=BindingScope(project="shop")
    )
    await door.put(RoleTemplateBinding(metadata=meta("in-shop"), spec=binding))
    await door.bind(person, "prod", "extra", "bound")
    return await door.token(person, "mine")


@pytest.fixture
def full(monkeypatch) -> asyncio.Event:
    """Set while the audit log takes no more."""
    event = asyncio.Event()

    def check_room(_log: AuditLog) -> None:
        if event.is_set():
            raise errors.Unavailable("the audit log takes no more")

    monkeypatch.setattr(AuditLog, "check_room", check_room)
    return event


@asynccontextmanager
async def asking(door: Door, cluster: Cluster, **call: object) -> AsyncIterator[asyncio.Task]:
    """A call that waits for the word of the cluster, which comes at the end of the block."""
    token = await member(door)
    async with (
        listening(cluster.serve) as port,
        door.agent("prod", lambda: Address("the API server", "127.0.0.1", port)),
    ):
        task = asyncio.create_task(door.get(PATH, token, **call))
        async with asyncio.timeout(10):
            await cluster.asked.wait()
            yield task
            cluster.release.set()
            await task


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_token_that_was_revoked_while_the_cluster_was_asked_is_good_for_nothing(door, allowed, method):
    cluster = Cluster(allowed=allowed)
    async with asking(door, cluster, method=method, body=b"{}" if method == "POST" else b"") as call:
        await door.remove(Token, "mine")
    assert (call.result().status, cluster.calls) == (401, [])
    assert (await door.events(1))[-1]["responseStatus"]["code"] == 401


async def test_a_role_that_was_taken_away_while_the_cluster_was_asked_does_not_go_along(door):
    cluster = Cluster(allowed=True)
    async with asking(door, cluster) as call:
        await door.remove(RoleTemplateBinding, "bound")
    assert call.result().status == 200
    groups = [value for name, value in fields(cluster.calls[0]) if name == "impersonate-group"]
    assert not [group for group in groups if group.endswith(":extra")], groups


async def test_nobody_is_let_in_who_has_no_business_there_by_then(door):
    cluster = Cluster(allowed=True)
    async with asking(door, cluster) as call:
        await door.remove(RoleTemplateBinding, "bound")
        await door.remove(RoleTemplateBinding, "in-shop")
    assert (call.result().status, cluster.calls) == (403, [])


async def test_nothing_is_let_in_that_could_not_be_written_down_by_then(full, door):
    cluster = Cluster(allowed=True)
    async with asking(door, cluster) as call:
        full.set()
    assert (call.result().status, cluster.calls) == (503, [])


async def test_an_answer_that_nobody_can_read_is_no_word_and_the_call_is_written_down(door):
    cluster = Cluster(allowed=True, word=b'{"status":' + b"[" * 100_000)
    async with asking(door, cluster) as call:
        pass
    assert (call.result().status, cluster.calls) == (502, [])
    assert (await door.events(1))[-1]["responseStatus"]["code"] == 502
