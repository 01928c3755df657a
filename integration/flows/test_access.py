"""Who can do what, and why, on a whole hub with a real cluster: what is explained is what the cluster does."""

from __future__ import annotations

import csv
import io
import json

import pytest

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
