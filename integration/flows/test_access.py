"""Who can do what, and why, on a whole hub with a real cluster: what is explained is what the cluster does."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from datetime import UTC, datetime

import pytest
import yaml

from integration.harness.hub import eventually

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package")]


async def paths(person, *words):
    return json.loads(await person.must("access", *words, "-o", "json"))["status"]


async def test_who_can_is_what_the_cluster_says_to_each(hub):
    admin, ana, ben = await hub.admin(), await hub.person("ana"), await hub.person("ben")
    await admin.must("group", "create", "readers", "ben")
    await admin.must("grant", "--user", "ana", "--role", "cluster-member", "--cluster", "local")
    await admin.must("grant", "--group", "readers", "--role", "cluster-viewer", "--cluster", "local")
    for person in (ana, ben):
        await person.fetch_kubeconfig()
    for verb, resource, words in (
        ("get", "secrets", ()), ("get", "pods", ()), ("create", "deployments.apps", ()), ("get", "nodes", ()), ("delete", "namespaces", ()),
        ("create", "pods", ("--subresource=exec",)), ("create", "serviceaccounts", ("--subresource=token",)),
    ):  # fmt: skip
        asked = f"{resource}/{words[0].partition('=')[2]}" if words else resource
        status = await paths(admin, "who-can", verb, asked, "--cluster", "local", "-n", "default")
        told = {path["user"] for path in status["paths"]}
        for person in (admin, ana, ben):
            answer = await person.kubectl("local", "auth", "can-i", verb, resource, "-n", "default", *words)
            assert (answer.out.strip() == "yes") == (person.name in told), (verb, asked, person.name, told, answer)
    status = await paths(admin, "explain", "ben", "get", "pods", "--cluster", "local")
    (path,) = status["paths"]
    assert (path["group"], path["role"], path["inherits"]) == ("readers", "cluster-viewer", ["cluster-viewer"])
    status = await paths(admin, "explain", "ana", "get", "pods", "--cluster", "local")
    assert status["paths"][0]["inherits"] == ["cluster-member", "cluster-viewer"]


async def test_who_reaches_a_secret_and_what_would_change(hub):
    admin, cleo = await hub.admin(), await hub.person("cleo")
    await admin.must("grant", "--user", "cleo", "--role", "cluster-member", "--cluster", "local")
    words = ("reach", "secrets", "--name", "db", "--cluster", "local", "-n", "default")
    told = {(p["user"], p["how"]) for p in (await paths(admin, "who-can", *words))["paths"]}
    assert ("admin", "") in told
    assert ("cleo", "runs pods that mount it") in told
    assert ("cleo", "") not in told
    change = ("--grant-user", "cleo", "--role", "cluster-owner", "--in-cluster", "local")
    status = await paths(admin, "what-if", *words, *change)
    assert ("cleo", "") in {(p["user"], p["how"]) for p in status["gained"]}
    assert (await cleo.kubectl("local", "get", "secrets")).code != 0, "nothing of it is done"
    exported = await admin.must("access", "who-can", *words, "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(exported)))
    assert {(row["user"], row["how"]) for row in rows} == told


async def test_without_rights_there_is_an_answer_about_oneself_alone(hub):
    admin, dan = await hub.admin(), await hub.person("dan")
    await admin.must("grant", "--user", "dan", "--role", "cluster-viewer", "--cluster", "local")
    status = await paths(dan, "who-can", "get", "pods", "--cluster", "local")
    assert [path["user"] for path in status["paths"]] == ["dan"]
    assert status["incomplete"]
    await dan.fetch_kubeconfig()
    body = b'{"apiVersion":"management.herdsman.dev/v1","kind":"AccessReview","spec":{"user":"dan"}}'
    created = await dan.sees("herdsman", "create", "-f", "-", "-o", "json", stdin=body)
    assert [path["role"] for path in json.loads(created)["status"]["paths"]] == ["cluster-viewer"]


async def granted(admin, name):
    return json.loads(await admin.sees("herdsman", "get", "accessrequest", name, "-o", "json"))


async def test_a_role_for_a_while_is_asked_for_approved_by_another_and_over_to_the_second(hub):
    admin, ida, jon = await hub.admin(), await hub.person("ida"), await hub.person("jon")
    await admin.must("grant", "--user", "jon", "--role", "cluster-owner", "--cluster", "local")
    await admin.must("grant", "--user", "ida", "--role", "cluster-viewer", "--cluster", "local")
    await admin.must(
        "access", "policy", "create", "on-call", "--role", "cluster-member", "--cluster", "local", "--requester", "user:ida",
        "--approver", "user:jon", "--approver", "user:ida", "--longest", "10m",
    )  # fmt: skip
    await ida.fetch_kubeconfig()
    assert "on-call" in await ida.must("access", "policy", "list")
    words = ("--role", "cluster-member", "--cluster", "local", "--reason", "the queue is stuck")
    too_long = await ida.herdsman("access", "request", *words, "--for", "11m")
    assert (too_long.code, "no access policy lets you" in too_long.err) == (4, True)
    name = (await ida.must("access", "request", *words, "--for", "5s")).strip()
    create = ("create", "configmap", "stuck", "--from-literal=a=b", "--dry-run=server")
    assert (await ida.kubectl("local", *create)).code != 0
    own = await ida.herdsman("access", "approve", name)
    assert (own.code, "somebody else has to decide" in own.err) == (4, True)
    assert name in await jon.must("access", "list", "--pending", "-o", "name")
    await jon.must("access", "approve", name, "--comment", "go on")
    until = datetime.fromisoformat((await granted(admin, name))["status"]["until"])
    assert (await ida.kubectl("local", *create)).code == 0
    status = await paths(admin, "explain", "ida", "create", "configmaps", "--cluster", "local")
    assert [p["binding"] for p in status["paths"]] == [(await granted(admin, name))["status"]["binding"]]
    await asyncio.sleep((until - datetime.now(UTC)).total_seconds() + 0.05)
    assert (await ida.kubectl("local", *create)).code != 0

    async def is_ended():
        return (await granted(admin, name))["status"]["phase"] == "Ended"

    await eventually(is_ended)
    replayed = await jon.herdsman("access", "approve", name)
    assert "nothing to decide" in replayed.err
    written = await admin.must("audit", "tail", "--user", "jon", "-o", "json")
    assert name in written


async def test_denied_withdrawn_and_revoked(hub):
    admin, kim, leo = await hub.admin(), await hub.person("kim"), await hub.person("leo")
    await admin.must("grant", "--user", "leo", "--role", "cluster-owner", "--cluster", "local")
    await admin.must(
        "access",
        "policy",
        "create",
        "viewing",
        "--role",
        "cluster-viewer",
        "--any-cluster",
        "--requester",
        "user:kim",
        "--approver",
        "user:leo",
    )
    words = ("--role", "cluster-viewer", "--cluster", "local", "--for", "10m", "--reason", "curious")
    one, two, three = [(await kim.must("access", "request", *words)).strip() for _ in range(3)]
    await leo.must("access", "deny", one, "--comment", "no need")
    await kim.must("access", "withdraw", two)
    await leo.must("access", "approve", three)
    await kim.fetch_kubeconfig()
    assert (await kim.kubectl("local", "get", "namespaces")).code == 0
    status = (await granted(admin, three))["status"]
    await leo.sees("herdsman", "delete", "roletemplatebinding", status["binding"])
    assert (await kim.kubectl("local", "get", "namespaces")).code != 0
    assert (await granted(admin, one))["status"]["phase"] == "Denied"
    assert (await admin.kubectl("herdsman", "get", "accessrequest", two)).code != 0

    async def is_revoked():
        return (await granted(admin, three))["status"]["phase"] == "Revoked"

    await eventually(is_revoked)


async def test_authz_killed_around_an_approval_leaves_both_the_status_and_the_role_or_neither(hub):
    admin, mia, ned = await hub.admin(), await hub.person("mia"), await hub.person("ned")
    await admin.must("grant", "--user", "ned", "--role", "cluster-owner", "--cluster", "local")
    await admin.must(
        "access",
        "policy",
        "create",
        "killed",
        "--role",
        "cluster-viewer",
        "--cluster",
        "local",
        "--requester",
        "user:mia",
        "--approver",
        "user:ned",
    )
    words = ("--role", "cluster-viewer", "--cluster", "local", "--for", "10m", "--reason", "x")
    token = yaml.safe_load(ned.kubeconfig.read_text())["users"][0]["user"]["token"]
    for delay_s in (0.03, 0.1, 0.2):
        name = (await mia.must("access", "request", *words)).strip()
        pid = hub.pids()["authz"]
        approving = asyncio.create_task(hub.raw(approval(name, token), timeout_s=60), name="approve")
        await asyncio.sleep(delay_s)
        hub.kill("authz")
        await approving

        async def is_back(pid=pid):
            answers = hub.pids().get("authz") not in (None, pid)
            return answers and (await mia.herdsman("access", "request", *words)).code == 0

        await eventually(is_back, 60)
        request = await granted(admin, name)
        binding = await admin.kubectl("herdsman", "get", "roletemplatebinding", f"access-{request['metadata']['uid']}")
        assert (request["status"]["phase"] == "Granted") == (binding.code == 0), (delay_s, request["status"])


def approval(name, token):
    body = json.dumps({"spec": {"decisions": [{"verdict": "approve"}]}}).encode()
    head = (
        f"PATCH /apis/management.herdsman.dev/v1/accessrequests/{name} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/merge-patch+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def test_an_emergency_is_at_once_told_as_an_error_and_reviewed_by_somebody_else(hub):
    admin, ola, pia = await hub.admin(), await hub.person("ola"), await hub.person("pia")
    await admin.must(
        "access", "policy", "create", "down", "--break-glass", "--role", "cluster-owner", "--cluster", "local", "--requester", "user:ola",
        "--approver", "user:pia", "--approver", "user:ola",
    )  # fmt: skip
    words = ("--role", "cluster-owner", "--cluster", "local", "--for", "10m", "--reason", "all is down")
    assert (await ola.herdsman("access", "request", *words)).code == 4, "without the word it is no emergency"
    name = (await ola.must("access", "request", *words, "--break-glass")).strip()
    await ola.fetch_kubeconfig()
    assert (await ola.kubectl("local", "get", "secrets", "-A")).code == 0

    async def is_told():
        return [
            line
            for line in (hub.data / "logs" / "authz.log").read_text().splitlines()
            if "break_glass_used" in line and name in line
        ]

    (line,) = await eventually(is_told)
    assert "error" in line
    assert "all is down" in line
    assert name in await admin.must("access", "list", "--unreviewed", "-o", "name")
    assert (await ola.herdsman("access", "approve", name)).code == 4
    assert "review it first" in (await admin.kubectl("herdsman", "delete", "accessrequest", name)).err
    await pia.must("access", "deny", name, "--comment", "nothing was down")
    assert (await ola.kubectl("local", "get", "secrets", "-A")).code != 0
    assert name not in await admin.must("access", "list", "--unreviewed", "-o", "name")
    assert (await granted(admin, name))["status"]["phase"] == "Revoked"
