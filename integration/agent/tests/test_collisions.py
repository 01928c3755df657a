"""Names of ours that are taken: what somebody else made is never touched, neither when applying nor when leaving, and nothing is built on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration.agent.looking import HUB_GROUP, Looker
from integration.agent.tests.test_apply import HubSide, Setup
from libs.common.kube.client import KubeClient
from tests.cluster_controller.made import ROLES
from tests.cluster_controller.test_render_projects import project

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(180)]
RBAC = "rbac.authorization.k8s.io"


async def versions(looker: Looker, *names: str) -> list[str]:
    """uid and resourceVersion of objects (`kind/name` or `kind/name/namespace`): the same twice means untouched."""
    found = []
    for name in names:
        kind, object_name, *namespace = name.split("/")
        more = ["-n", namespace[0]] if namespace else []
        document = json.loads(await looker.run("get", kind, object_name, *more, "-o", "json"))
        found.append(document["metadata"]["uid"] + document["metadata"]["resourceVersion"])
    return found


async def errors_of(s: Setup) -> dict[str, str]:
    await s.keeper.pull()
    return {report.name: report.error for report in await s.keeper.enforce()}


async def test_a_strangers_role_stays_as_it_is_and_is_bound_to_nobody(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    await looker.run("create", "clusterrole", "herdsman:cluster-viewer", "--verb=*", "--resource=*")
    before = await versions(looker, "clusterrole/herdsman:cluster-viewer")
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        error = (await errors_of(s))["roles"]
        assert 'ClusterRole "herdsman:cluster-viewer" was in the cluster before and belongs to somebody else' in error
        assert 'ClusterRoleBinding "herdsman:cluster-viewer" is not applied' in error
        assert await looker.labelled() == [
            "ClusterRole/herdsman:cluster-owner", HUB_GROUP[0], "ClusterRole/herdsman:project-member",
            "ClusterRoleBinding/herdsman:cluster-owner", HUB_GROUP[1],
        ]  # fmt: skip
        # The stranger leaves: ours is made, and a second stranger takes its place. Our binding to it goes.
        await looker.run("delete", "clusterrole", "herdsman:cluster-viewer")
        assert (await errors_of(s))["roles"] == ""
        assert len(await looker.labelled()) == 7
        await looker.run("delete", "clusterrole", "herdsman:cluster-viewer")
        await looker.run("create", "clusterrole", "herdsman:cluster-viewer", "--verb=*", "--resource=*")
        before = await versions(looker, "clusterrole/herdsman:cluster-viewer")
        assert "is taken away" in (await errors_of(s))["roles"]
        assert "ClusterRoleBinding/herdsman:cluster-viewer" not in await looker.named()
        assert await s.detacher.remove() == []
    assert await versions(looker, "clusterrole/herdsman:cluster-viewer") == before
    assert await looker.named() == ["ClusterRole/herdsman:cluster-viewer"]


async def test_strangers_objects_of_every_kind_that_projects_put_into_namespaces_are_left_alone(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    space = "taken"
    await looker.run("create", "namespace", space)
    metadata: dict[str, Any] = {"name": "herdsman-project", "namespace": space}
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"}
    await looker.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "1"}}},
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}},
        {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", "metadata": {"name": "herdsman:project-member", "namespace": space}, "roleRef": role, "subjects": []},
    )  # fmt: skip
    names = [f"{kind}/herdsman-project/{space}" for kind in ("resourcequota", "limitrange", "networkpolicy")]
    names.append(f"rolebinding/herdsman:project-member/{space}")
    before = await versions(looker, *names)
    made = project("web", f"edge/{space}")
    made.spec.namespaces[0].share = {"pods": "7"}
    made.spec.container_limits.default = {"memory": "1Gi"}
    made.spec.isolated = True
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        s.hub.projects = [made]
        reports = await errors_of(s)
        assert reports["roles"] == ""
        assert reports["projects/web"].count("belongs to somebody else") == 4
        assert await versions(looker, *names) == before
        s.hub.projects = []
        await errors_of(s)
        assert await s.detacher.remove() == []
    assert await versions(looker, *names) == before
    await looker.run("delete", "namespace", space, "--wait=false")


async def test_a_binding_that_somebody_made_anew_to_another_role_is_theirs(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        assert (await errors_of(s))["roles"] == ""
        name = "herdsman:cluster-viewer"
        await looker.run("delete", "clusterrolebinding", name)
        await looker.run("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", "--group=herdsman:x")
        before = await versions(looker, f"clusterrolebinding/{name}")
        assert "belongs to somebody else" in (await errors_of(s))["roles"]
        assert await s.detacher.remove() == []
        assert await versions(looker, f"clusterrolebinding/{name}") == before


async def test_what_is_ours_is_known_without_its_labels(client: KubeClient, looker: Looker, tmp_path: Path) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        assert (await errors_of(s))["roles"] == ""
        marks = ("app.kubernetes.io/managed-by-", "management.herdsman.dev/part-")
        for name in ("clusterrole/herdsman:cluster-viewer", "clusterrolebinding/herdsman:cluster-viewer"):
            await looker.run("label", name, *marks)
        assert len(await looker.labelled()) == 5
        assert (await errors_of(s))["roles"] == ""
        assert len(await looker.labelled()) == 7
        assert await s.detacher.remove() == []
