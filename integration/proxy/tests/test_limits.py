"""Large heads and people with very many groups: everything up to the limit works, and beyond it the answer says which limit."""

from __future__ import annotations

import asyncio
import json

import pytest

from integration.proxy.tests.test_http import read_answer
from libs.common.resources import codec
from libs.common.resources.access import (
    BindingScope,
    RoleTemplate,
    RoleTemplateBinding,
    RoleTemplateBindingSpec,
    RoleTemplateSpec,
)
from tests.auth_proxy.door import meta

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(240)]
PREFIX = "/k8s/clusters/prod"
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def person_with_roles(door, count: int) -> str:
    """A person with so many roles in the cluster, each of which is a group there; returns the token."""
    person = await door.user("groupie")
    store = door.stores["authz"]
    for i in range(count):
        name = f"role-with-a-name-of-some-length-{i:04}"
        spec = RoleTemplateSpec(scope="cluster", rules=[])
        await store.create(f"roletemplates.{name}", codec.encode(RoleTemplate(metadata=meta(name), spec=spec)))
        binding = RoleTemplateBindingSpec(
            principal=f"local:user:{person.uid}", user=person.name, role=name, scope=BindingScope(cluster="prod")
        )
        made = RoleTemplateBinding(metadata=meta(f"b-{i}"), spec=binding)
        await store.create(f"roletemplatebindings.b-{i}", codec.encode(made))
    for plural in ("roletemplates", "roletemplatebindings"):
        await (await door.host.informer("authz", plural)).wait_revision(2 * count, timeout_s=60)
    return await door.token(person)


async def ask(door, token: str):
    """(status, document) of a SelfSubjectReview."""
    body = b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'
    reader, writer = await door.connect()
    writer.write(
        f"POST {PREFIX}{REVIEW} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    )  # fmt: skip
    async with asyncio.timeout(30):
        status, answer = await read_answer(reader)
    writer.close()
    return status, json.loads(answer)


async def test_five_hundred_groups_of_a_person_all_arrive(way):
    status, review = await ask(way.door, await person_with_roles(way.door, 500))
    assert status == 201, review
    expected = {f"herdsman:cluster:prod:role-with-a-name-of-some-length-{i:04}" for i in range(500)}
    assert set(review["status"]["userInfo"]["groups"]) == expected | {"system:authenticated"}


async def test_too_many_groups_for_one_head_are_refused_in_words(way):
    status, refusal = await ask(way.door, await person_with_roles(way.door, 1000))
    assert (status, refusal["kind"]) == (431, "Status")
    assert "1000 groups" in refusal["message"]
    # The limit is this person's alone.
    assert (await way.door.get(f"{PREFIX}/version", way.token)).status == 200


@pytest.mark.parametrize("size", [8_000, 32_000, 60_000])
async def test_long_selectors_reach_the_api_server(way, size):
    selector = ",".join(f"key{i}!=value{i}" for i in range(10_000))[: size - 500].rpartition(",")[0]
    reply = await way.door.get(f"{PREFIX}/api/v1/namespaces/default/configmaps?labelSelector={selector}", way.token)
    assert reply.status == 200, reply.body[:300]
    assert json.loads(reply.body)["kind"] == "ConfigMapList"


async def test_a_head_beyond_the_limit_is_refused_and_the_connection_closed(way):
    reply = await way.door.get(f"{PREFIX}/version?x={'y' * 66_000}", way.token)
    assert reply.status == 431
    assert "64 KiB" in reply.message
    assert b"connection: close" in reply.head.lower()
