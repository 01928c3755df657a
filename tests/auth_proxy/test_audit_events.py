"""What a call through the front door leaves behind: its shape, its stages, and what policies make of it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re

import pytest

from libs.common.audit.chain import read_batch
from libs.common.resources.audit import AuditPolicy
from services.auth_proxy import audit, audit_spool
from tests.auth_proxy.conftest import Echo
from tests.auth_proxy.door import Door, meta
from tests.store.watching import eventually

POD = "/k8s/clusters/prod/api/v1/namespaces/default/pods/p"
PREFIX = "audit.herdsman.dev/"
MICRO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


async def put_policy(door: Door, *rules: dict, name: str = "p", priority: int = 1000) -> None:
    spec = {"priority": priority, "rules": list(rules)}
    policy = AuditPolicy.model_validate({"metadata": {}, "spec": spec})
    policy.metadata = meta(name)
    await door.put(policy)


async def wait_stage(door: Door, stage: str) -> dict:
    async with asyncio.timeout(5):
        while True:
            found = [e for e in await door.events(0) if e["stage"] == stage]
            if found:
                return found[0]
            await asyncio.sleep(0.02)


async def wait_full(door: Door, token: str, *, full: bool) -> None:
    """Until the log is full, or has room again, as a caller sees it."""
    async with asyncio.timeout(5):
        while ("audit log" in (await door.get("/apis", token)).message) is not full:  # noqa: ASYNC110 - what is asked for has no event
            await asyncio.sleep(0.05)


async def test_a_call_is_an_event_as_kubernetes_writes_them(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        await door.get(POD, token, "User-Agent: kubectl/v1.36.0")
    event = (await door.events(1))[0]
    name = token.split("_")[1]
    assert (event["kind"], event["apiVersion"], event["level"]) == ("Event", "audit.k8s.io/v1", "Metadata")
    assert (event["stage"], event["verb"], event["requestURI"]) == ("ResponseComplete", "get", POD)
    assert event["user"] == {
        "username": "ada", "uid": door.uids["user/ada"], "groups": ["herdsman:cluster:prod:cluster-owner"],
        "extra": {"herdsman-principal": [f"local:user:{door.uids['user/ada']}"], "herdsman-token": [name]},
    }  # fmt: skip
    assert event["objectRef"] == {"resource": "pods", "namespace": "default", "name": "p", "apiVersion": "v1"}
    assert event["sourceIPs"] in (["127.0.0.1"], ["::1"])
    assert event["userAgent"] == "kubectl/v1.36.0"
    assert event["responseStatus"] == {"metadata": {}, "code": 200}
    assert MICRO.fullmatch(event["requestReceivedTimestamp"])
    assert MICRO.fullmatch(event["stageTimestamp"])
    notes = event["annotations"]
    assert (notes[f"{PREFIX}cluster"], notes[f"{PREFIX}clusterUid"]) == ("prod", door.uids["cluster/prod"])
    assert (notes[f"{PREFIX}decision"], notes[f"{PREFIX}token"]) == ("allow", name)
    assert int(notes[f"{PREFIX}bytesOut"]) > 100
    assert float(notes[f"{PREFIX}durationMs"]) > 0
    # The same line is in the stream, in a signed batch.
    journal = door.host.bus.journals["AUDIT"]
    await eventually(
        lambda: any(b'"kubectl/v1.36.0"' in line for e in journal.entries for line in read_batch(e.data)[1])
    )


@pytest.mark.parametrize(
    ("path", "credential", "code", "reason"),
    [
        (POD, "hm_no_no", 401, "Unauthorized"),
        (POD, "", 401, "Unauthorized"),
        (POD.replace("prod", "other"), "good", 403, "Forbidden"),
        ("/k8s/clusters/prod/api/../x", "good", 400, "BadRequest"),
        ("/apis", "rubbish", 401, "Unauthorized"),
    ],
)
async def test_calls_that_are_refused_are_events_with_the_reason(door, path, credential, code, reason):
    token = await door.member()
    assert (await door.get(path, token if credential == "good" else credential)).status == code
    event = (await door.events(1))[0]
    assert event["annotations"][f"{PREFIX}decision"] == "forbid"
    status = event["responseStatus"]
    assert (status["status"], status["code"], status["reason"]) == ("Failure", code, reason)
    assert status["message"] == event["annotations"][f"{PREFIX}reason"]
    assert token.split("_", 2)[2] not in json.dumps(event)


async def test_an_open_exec_is_seen_while_it_runs_and_is_a_create(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        _, writer = await door.connect()
        writer.write(
            f"GET {POD}/exec?command=mysql&command=-pcanary HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\n"
            "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n".encode()
        )
        started = await wait_stage(door, "ResponseStarted")
        assert (started["verb"], started["objectRef"]["subresource"], started["responseStatus"]["code"]) == (
            "create",
            "exec",
            101,
        )
        assert started["requestURI"].endswith("exec?command=mysql&command=***")
        assert [e["stage"] for e in await door.events(0)] == ["ResponseStarted"]
        writer.close()
        complete = await wait_stage(door, "ResponseComplete")
    assert complete["auditID"] == started["auditID"]
    assert complete["requestReceivedTimestamp"] == started["requestReceivedTimestamp"]


async def test_a_head_that_is_no_request_is_an_event_with_its_peer(door):
    await door.talk(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    await door.talk(b"GET /apis HTTP/1.0\r\nHost: a\r\n\r\n")
    for event in await door.events(2):
        assert event["verb"] == "malformed"
        assert event["sourceIPs"] in (["127.0.0.1"], ["::1"])
        assert event["responseStatus"]["code"] == 400


async def test_policies_count_from_the_next_call_on_without_a_restart(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        await put_policy(door, {"level": "None", "users": ["ada"], "resources": [{"resources": ["pods"]}]})
        await door.get(POD, token)
        await door.get(POD.replace("pods", "services"), token)
        assert [e["objectRef"]["resource"] for e in await door.events(1)] == ["services"]
        await door.remove(AuditPolicy, "p")
        await door.get(POD, token)
        assert [e["objectRef"]["resource"] for e in await door.events(2)] == ["services", "pods"]


async def test_a_policy_that_cannot_be_read_hides_nothing(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        await put_policy(door, {"level": "None"}, name="z", priority=50)
        store = door.stores["authz"]
        await store.create("auditpolicies.broken", (await store.get("auditpolicies.z")).value.replace(b"None", b"Nope"))
        await door.settle("authz", "auditpolicies")
        await door.get(POD, token)
        assert [e["level"] for e in await door.events(1)] == ["Metadata"]


async def test_bodies_are_shown_where_a_policy_says_so_and_secrets_never(door, echo: Echo):
    token = await door.member()
    await put_policy(door, {"level": "RequestResponse"})
    body = b'{"kind":"Secret","data":{"password":"canary"}}'
    echo.reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with door.agent("prod", echo.address):
        pod = b'{"kind":"Pod","metadata":{"name":"p"}}'
        await door.get(POD, token, "Content-Type: application/json", method="GET", body=pod)
        for path in (
            POD.replace("pods/p", "secrets/s"), POD.replace("pods/p", "serviceaccounts/s/token"), POD.replace("pods/p", "configmaps/c"),
        ):  # fmt: skip
            await door.get(path, token, "Content-Type: application/json", body=body)
        events = await door.events(4)
    assert events[0]["level"] == "RequestResponse"
    assert events[0]["requestObject"] == {"kind": "Pod", "metadata": {"name": "p"}}
    assert "never shown" in events[0]["responseObject"]["omitted"]
    for event in events[1:]:
        assert "requestObject" not in event
        assert "responseObject" not in event
        assert event["annotations"][f"{PREFIX}bodies"]
    assert "canary" not in json.dumps(events)


async def test_no_room_for_events_is_503_for_calls_and_not_for_probes(door, echo, monkeypatch):
    token = await door.member()

    def no_disk(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(audit_spool.os, "pwrite", no_disk)
    monkeypatch.setattr(audit, "QUEUE_SOFT", 1)  # what waits in memory while the disk takes nothing
    await door.get("/apis")
    await wait_full(door, token, full=True)
    async with door.agent("prod", echo.address, wait=False):
        for path in (POD, "/apis", "/v1/login"):
            reply = await door.get(path, token)
            assert reply.status == 503
            assert b"Retry-After: 1" in reply.head
            assert "the audit log takes no more" in reply.message
    assert (await door.get("/healthz")).status == 200
    monkeypatch.undo()
    await wait_full(door, token, full=False)


async def test_a_broken_credential_of_any_kind_leaves_a_trace(door):
    for line in ("Authorization: Basic Y2FuYXJ5", "Authorization: Bearer", "Authorization: Bearer hm_x_canarycanary"):
        await door.talk(f"GET /apis HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{line}\r\n\r\n".encode())
    events = await door.events(3)
    assert {e["responseStatus"]["code"] for e in events} == {401}
    assert "canary" not in json.dumps(events)
    assert "Y2FuYXJ5" not in json.dumps(events)


async def test_whom_a_caller_wishes_to_be_is_in_the_event(door, echo):
    token = await door.member()
    async with door.agent("prod", echo.address):
        await door.get(POD, token, "Impersonate-User: bob", "Impersonate-Group: dev", "Impersonate-Extra-Scope: a")
    event = (await door.events(1))[0]
    assert event["user"]["username"] == "ada"
    assert event["impersonatedUser"] == {"username": "bob", "groups": ["dev"], "extra": {"scope": ["a"]}}
