"""Bad input at the public address: each gets a clear answer, and the hub goes on."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="package")
API = "/apis/management.herdsman.dev/v1"


async def token_of(person) -> str:
    servers = json.loads((person.folder / "config.json").read_text())
    return next(value for value in _strings(servers) if value.startswith("hm_"))


def _strings(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value


async def send(hub, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict]:
    lines = [f"{method} {path} HTTP/1.1", "Host: hub", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    answer = await hub.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    head, _, content = answer.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        content = content.partition(b"\r\n")[2].rpartition(b"\r\n0")[0]
    return int(head.split(b" ", 2)[1]), json.loads(content)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Impersonate-User\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Remote-User: admin\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_a_malformed_head_is_refused(bare_hub, head):
    answer = await bare_hub.raw(head)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403", b"HTTP/1.1 431", b"HTTP/1.1 408")), answer[:80]


async def test_unknown_kinds_and_routes_are_404_with_a_status(bare_hub):
    admin = await bare_hub.admin()
    token = await token_of(admin)
    status, document = await send(bare_hub, "GET", f"{API}/gadgets", Authorization=f"Bearer {token}")
    assert (status, document["kind"], document["reason"]) == (404, "Status", "NotFound")


async def test_no_token_and_a_bad_token_are_401(bare_hub):
    for headers in (
        {},
        {"Authorization": "Bearer hm_a_b"},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic YTpi"},
    ):
        status, document = await send(bare_hub, "GET", f"{API}/users", **headers)
        assert (status, document["kind"]) == (401, "Status"), headers


async def test_a_forged_identity_envelope_is_refused_at_the_door(bare_hub):
    status, _ = await send(bare_hub, "GET", f"{API}/users", Herdsman_Identity="e30.e30")
    assert status in (400, 401)


async def test_an_oversized_body_is_413(bare_hub):
    token = await token_of(await bare_hub.admin())
    body = b'{"spec":"' + b"x" * 4_000_000 + b'"}'
    status, document = await send(
        bare_hub, "POST", f"{API}/projects", body, Authorization=f"Bearer {token}", Content_Type="application/json"
    )
    assert (status, document["reason"]) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[" * 5000, 400),
        (b'{"apiVersion":"v9","kind":"Project","metadata":{"name":"a"}}', 400),
        (b'{"apiVersion":"management.herdsman.dev/v1","kind":"Project","metadata":{"name":"Bad_Name"},"spec":{}}', 422),
        (
            b'{"apiVersion":"management.herdsman.dev/v1","kind":"Project","metadata":{"name":"a"},"spec":{"namespaces":7}}',
            422,
        ),
    ],
)
async def test_bodies_that_are_wrong_are_said_to_be(bare_hub, body, status):
    token = await token_of(await bare_hub.admin())
    got, document = await send(
        bare_hub, "POST", f"{API}/projects?fieldValidation=Strict", body,
        Authorization=f"Bearer {token}", Content_Type="application/json",
    )  # fmt: skip
    assert got == status, document
    assert document["kind"] == "Status"
    assert document["message"]


async def test_a_stale_resource_version_is_409(bare_hub):
    admin = await bare_hub.admin()
    made = await admin.kubectl(
        "herdsman", "create", "-f", "-", "-o", "json",
        stdin=b'{"apiVersion":"management.herdsman.dev/v1","kind":"Project","metadata":{"name":"stale"},"spec":{}}',
    )  # fmt: skip
    document = json.loads(made.out)
    await admin.sees("herdsman", "label", "project", "stale", "a=b")
    document["spec"]["displayName"] = "late"
    answer = await admin.kubectl("herdsman", "replace", "-f", "-", stdin=json.dumps(document).encode())
    assert answer.code != 0
    assert "the object has been modified" in answer.err
    await admin.sees("herdsman", "delete", "project", "stale")


async def test_an_unknown_cluster_and_a_used_up_registration_token_are_said(bare_hub):
    token = await token_of(await bare_hub.admin())
    status, document = await send(
        bare_hub, "GET", "/k8s/clusters/nowhere/api/v1/namespaces", Authorization=f"Bearer {token}"
    )
    assert status in (403, 404)
    assert "nowhere" in document["message"]
    body = json.dumps({"token": "hr_unknown_token", "public_key": "U" * 56}).encode()
    status, document = await send(bare_hub, "POST", "/v1/agents/register", body, Content_Type="application/json")
    assert status in (400, 401, 403, 422)
    assert document["kind"] == "Status"


async def test_the_hub_is_still_well_after_all_that(bare_hub):
    assert (await bare_hub.get("/readyz"))[0] == 200
