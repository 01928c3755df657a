"""Members of projects see and make their namespaces by plain kubectl, through the hub, its agent and a real API server."""

from __future__ import annotations

import json

import pytest

from integration.flows.test_projects_rbac import put_project, works_within
from integration.harness.hub import eventually

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(240)]


async def owner_of(hub, name: str, *projects: str):
    admin, person = await hub.admin(), await hub.person(name)
    for project in projects:
        first = f"{project}-first"
        await admin.sees("local", "create", "namespace", first)
        await put_project(hub, project, f"local/{first}")
        await admin.must("grant", "--user", name, "--role", "project-owner", "--project", project)
    # With the plug-in, as people have it: its tokens are good for clusters alone.
    await person.must("kubeconfig", "--output", str(person.kubeconfig))
    for project in projects:
        await works_within(person, "local", f"{project}-first")
    return admin, person


async def test_kubectl_create_namespace_lands_in_the_project_and_is_listed_at_once(hub):
    admin, olga = await owner_of(hub, "olga", "shop")
    made = await olga.kubectl("local", "create", "namespace", "shop-two", "-o", "json")
    assert made.code == 0, made.err
    document = json.loads(made.out)
    assert (document["kind"], document["metadata"]["name"]) == ("Namespace", "shop-two")
    assert document["metadata"]["labels"]["management.herdsman.dev/project"] == "shop"
    assert document["metadata"]["uid"]
    assert document["status"]["phase"] == "Active"
    assert await olga.sees("local", "create", "configmap", "x", "-n", "shop-two")
    listed = (await olga.sees("local", "get", "ns", "-o", "name")).split()
    assert listed == ["namespace/shop-first", "namespace/shop-two"]
    project = json.loads(await admin.sees("herdsman", "get", "project", "shop", "-o", "json"))
    assert [n["namespace"] for n in project["spec"]["namespaces"]] == ["shop-first", "shop-two"]
    again = await olga.kubectl("local", "create", "namespace", "shop-two")
    assert again.code != 0
    assert "AlreadyExists" in again.err
    own = await olga.kubectl("local", "create", "namespace", "default")
    assert own.code != 0
    assert "AlreadyExists" in own.err or "belongs to the cluster" in own.err


async def test_apply_and_dry_run_and_what_a_project_does_not_keep(hub):
    _admin, paula = await owner_of(hub, "paula", "lab")
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab-two"}}
    dry = await paula.kubectl("local", "create", "namespace", "lab-dry", "--dry-run=server", "-o", "name")
    assert dry.out.strip() == "namespace/lab-dry", dry.err
    assert "NotFound" in (await paula.kubectl("local", "get", "ns", "lab-dry")).err
    applied = await paula.kubectl("local", "apply", "-f", "-", stdin=json.dumps(document).encode())
    assert applied.code == 0, applied.err
    helm = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab-helm", "labels": {"name": "lab-helm"}}}
    raw = await paula.kubectl("local", "create", "--raw", "/api/v1/namespaces", "-f", "-", stdin=json.dumps(helm).encode())  # fmt: skip
    assert raw.code == 0, raw.err
    odd = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab-odd", "labels": {"team": "x"}}}
    refused = await paula.kubectl("local", "create", "-f", "-", stdin=json.dumps(odd).encode())
    assert refused.code != 0
    assert "does not keep it" in refused.err
    assert (await paula.sees("local", "get", "ns", "-o", "name")).split() == [f"namespace/lab-{n}" for n in ("first", "helm", "two")]  # fmt: skip


async def test_with_several_projects_the_label_says_which(hub):
    _admin, rosa = await owner_of(hub, "rosa", "red", "blue")
    refused = await rosa.kubectl("local", "create", "namespace", "violet")
    assert refused.code != 0
    assert "management.herdsman.dev/project: blue, red" in refused.err
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "violet", "labels": {"management.herdsman.dev/project": "red"}}}  # fmt: skip
    made = await rosa.kubectl("local", "create", "-f", "-", stdin=json.dumps(document).encode())
    assert made.code == 0, made.err
    label = await rosa.sees("local", "get", "ns", "violet", "--show-labels")
    assert "management.herdsman.dev/project=red" in label


async def test_who_may_not_make_namespaces_is_refused_and_who_may_in_the_cluster_is_not_concerned(hub):
    admin, _sam = await owner_of(hub, "sam", "green")
    vera = await hub.person("vera")
    await admin.must("grant", "--user", "vera", "--role", "project-viewer", "--project", "green")
    await vera.fetch_kubeconfig()
    await works_within(vera, "local", "green-first")
    refused = await vera.kubectl("local", "create", "namespace", "green-two")
    assert refused.code != 0
    assert "no project in cluster" in refused.err
    await admin.must("grant", "--user", "vera", "--role", "cluster-owner", "--cluster", "local")

    async def made() -> bool:
        return (await vera.kubectl("local", "create", "namespace", "nobodys")).code == 0

    await eventually(made, 5)
    assert "management.herdsman.dev" not in await vera.sees("local", "get", "ns", "nobodys", "-o", "json")
    assert "namespace/default" in await vera.sees("local", "get", "ns", "-o", "name")
