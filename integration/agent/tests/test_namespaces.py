"""Namespaces of projects on a real API server: made, adorned, kept in bounds, released, and never deleted with what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from integration.agent.looking import Looker
from integration.agent.tests.test_apply import HubSide, Setup
from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.resources.projects import Project
from services.agent.apply import release
from services.agent.claims import POD_SECURITY, PROJECT, PROJECT_UID
from tests.cluster_controller.made import ROLES
from tests.cluster_controller.test_render_projects import project

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(180)]


def full_project(name: str, space: str, *, create: bool = False, uid: str = "") -> Project:
    made = project(name, f"edge/{space}", uid=uid)
    made.spec.namespaces[0].create = create
    made.spec.namespaces[0].share = {"requests.cpu": "0.5", "pods": "7"}
    made.spec.container_limits.default = {"memory": "1024Mi"}
    made.spec.container_limits.default_request = {"cpu": "0.1"}
    made.spec.isolated, made.spec.pod_security = True, "baseline"
    made.spec.labels, made.spec.annotations = {"team": name}, {"example.com/mail": "a@example.com"}
    return made


async def namespace(looker: Looker, name: str) -> dict[str, Any]:
    found = await looker.get("namespace", name)
    return dict(found["metadata"])


async def inside(looker: Looker, space: str) -> list[str]:
    out = await looker.run("get", "resourcequota,limitrange,networkpolicy,rolebinding", "-n", space, "-o", "json")
    return sorted(f"{i['kind']}/{i['metadata']['name']}" for i in json.loads(out)["items"])


OURS = [
    "LimitRange/herdsman-project", "NetworkPolicy/herdsman-project", "ResourceQuota/herdsman-project",
    "RoleBinding/herdsman:project-member",
]  # fmt: skip


async def fill(looker: Looker, space: str) -> None:
    """Work of people: a claim for storage, something with data, and a policy of their own."""
    await looker.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": space},
         "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own", "namespace": space}, "stringData": {"a": "b"}},
    )  # fmt: skip


async def errors_of(s: Setup) -> dict[str, str]:
    await s.keeper.pull()
    return {report.name: report.error for report in await s.keeper.enforce()}


@pytest.mark.parametrize("how", ["the project goes", "the cluster leaves the hub"])
async def test_a_namespace_is_adorned_and_released_and_keeps_what_people_have_in_it(
    client: KubeClient, looker: Looker, tmp_path: Path, how: str
) -> None:
    space = "work-" + how.split()[1]
    await looker.run("create", "namespace", space)
    await looker.run("label", "namespace", space, "own=stays", "app.kubernetes.io/managed-by=Helm")
    await fill(looker, space)
    before = await namespace(looker, space)
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        s.hub.projects = [full_project("web", space)]
        assert await errors_of(s) == {"roles": "", "projects/web": ""}
        metadata = await namespace(looker, space)
        assert metadata["uid"] == before["uid"]
        assert metadata["labels"] == {**before["labels"], PROJECT: "web", "team": "web", POD_SECURITY: "baseline"}
        assert metadata["annotations"]["example.com/mail"] == "a@example.com"
        assert metadata["annotations"][PROJECT_UID] == "uid-web"
        assert await inside(looker, space) == OURS
        # A second round writes nothing, also where the API server writes quantities otherwise.
        seen = (await namespace(looker, space))["resourceVersion"]
        quota = (await looker.run("get", "resourcequota,limitrange", "-n", space, "-o", "json")).encode()
        assert await errors_of(s) == {"roles": "", "projects/web": ""}
        assert (await namespace(looker, space))["resourceVersion"] == seen
        again = (await looker.run("get", "resourcequota,limitrange", "-n", space, "-o", "json")).encode()
        assert [i["metadata"]["generation"] if "generation" in i["metadata"] else i["spec"] for i in json.loads(again)["items"]] == [
            i["metadata"]["generation"] if "generation" in i["metadata"] else i["spec"] for i in json.loads(quota)["items"]
        ]  # fmt: skip

        if how == "the project goes":
            s.hub.projects = []
            await errors_of(s)
        else:
            assert await s.detacher.remove() == []
        after = await namespace(looker, space)
        assert (after["uid"], after["labels"]) == (before["uid"], before["labels"])
        assert "deletionTimestamp" not in after
        assert not (after.get("annotations") or {}).keys() & {PROJECT_UID, "example.com/mail"}
        assert await inside(looker, space) == []
        assert "secret/own" in await looker.run("get", "secret,pvc", "-n", space, "-o", "name")
        assert "persistentvolumeclaim/data" in await looker.run("get", "secret,pvc", "-n", space, "-o", "name")
        assert await s.detacher.remove() == []
    await looker.run("delete", "namespace", space, "--wait=false")


async def test_one_is_made_where_the_project_says_so_and_stays_when_the_project_goes(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        s.hub.projects = [full_project("web", "fresh", create=True), project("web-two", "edge/nowhere")]
        reports = await errors_of(s)
        assert (reports["projects/web"], reports["roles"]) == ("", "")
        assert 'namespace "nowhere" is not in the cluster' in reports["projects/web-two"]
        made = await namespace(looker, "fresh")
        assert made["labels"]["team"] == "web"
        assert await inside(looker, "fresh") == OURS
        # Somebody takes all our marks off: it is still known by what is in it.
        await looker.run("label", "namespace", "fresh", f"{PROJECT}-", "team-")
        await looker.run("annotate", "namespace", "fresh", f"{PROJECT_UID}-")
        assert (await errors_of(s))["projects/web"] == ""
        assert (await namespace(looker, "fresh"))["labels"] == made["labels"]
        s.hub.projects = []
        await errors_of(s)
        assert await inside(looker, "fresh") == []
        released = await namespace(looker, "fresh")
        assert released["uid"] == made["uid"]
        assert released["labels"] == {"kubernetes.io/metadata.name": "fresh"}

        # Another project of the same name wants to make it: it was there before, whoever made it.
        s.hub.projects = [full_project("web", "fresh", create=True, uid="uid-later")]
        assert "left alone" in (await errors_of(s))["projects/web"]
        assert await inside(looker, "fresh") == []
        assert (await namespace(looker, "fresh"))["labels"] == released["labels"]
        # To adopt it is said by leaving out create.
        s.hub.projects = [full_project("web", "fresh", uid="uid-later")]
        assert (await errors_of(s))["projects/web"] == ""
        assert await inside(looker, "fresh") == OURS
        assert await s.detacher.remove() == []
    await looker.run("delete", "namespace", "fresh", "--wait=false")


async def test_a_namespace_that_moves_has_the_old_projects_group_taken_before_it_gets_the_new(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    await looker.run("create", "namespace", "moving")
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        s.hub.projects = [full_project("one", "moving"), project("two")]
        await errors_of(s)
        s.hub.projects = [project("one"), full_project("two", "moving")]
        assert await s.keeper.pull()
        reports = await s.keeper.enforce({"projects.one", "projects.two"})
        assert {r.name: r.error for r in reports} == {"roles": "", "projects/two": ""}
        bound = json.loads(await looker.run("get", "rolebinding", "-n", "moving", "-o", "json"))["items"]
        assert [b["subjects"][0]["name"] for b in bound] == ["herdsman:project:two:uid-two:project-member"]
        assert (await namespace(looker, "moving"))["labels"][PROJECT] == "two"
        assert await s.detacher.remove() == []
    await looker.run("delete", "namespace", "moving", "--wait=false")


class Cut(Exception):
    """The agent dies."""


class CutClient:
    """A client that goes away before its nth write."""

    def __init__(self, client: KubeClient, writes: int) -> None:
        self._client, self._left = client, writes

    def __getattr__(self, name: str) -> Any:
        if name in ("apply", "create", "merge", "delete"):
            if self._left == 0:
                raise Cut
            self._left -= 1
        return getattr(self._client, name)


async def test_it_converges_from_a_cut_before_any_write_and_loses_no_namespace(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    await looker.run("create", "namespace", "cut-old")
    await fill(looker, "cut-old")
    uid = (await namespace(looker, "cut-old"))["uid"]
    cuts = 0
    for writes in range(40):
        async with Setup(client, tmp_path / f"a{writes}", HubSide(ROLES[3:])) as s:
            s.hub.projects = [full_project("one", "cut-old")]
            await errors_of(s)
            s.hub.projects = [full_project("two", "cut-new", create=True)]
            await s.keeper.pull()
            s.applier._client = CutClient(client, writes)  # type: ignore[assignment]
            try:
                await s.keeper.enforce()
                finished = True
            except Cut:
                cuts, finished = cuts + 1, False
            s.applier._client = client
            assert await errors_of(s) == {"roles": "", "projects/two": ""}
            assert await inside(looker, "cut-new") == OURS
            assert await inside(looker, "cut-old") == []
            old = await namespace(looker, "cut-old")
            assert (old["uid"], old["labels"]) == (uid, {"kubernetes.io/metadata.name": "cut-old"})
            assert await s.detacher.remove() == []
        await client.delete("/api/v1/namespaces/cut-new")
        await looker.run("wait", "--for=delete", "namespace/cut-new", "--timeout=30s")
        if finished:
            break
    assert cuts > 8
    assert "persistentvolumeclaim/data" in await looker.run("get", "pvc", "-n", "cut-old", "-o", "name")
    await looker.run("delete", "namespace", "cut-old", "--wait=false")


async def test_the_api_server_makes_no_namespace_from_an_apply_with_a_uid(client: KubeClient, looker: Looker) -> None:
    """What `adorn` and `release` rest on: a namespace that went meanwhile is not made again by them, nor is another one taken for it."""
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ghost", "uid": "0-0-0-0"}}
    with pytest.raises(errors.Conflict, match="uid mismatch"):
        await client.apply("/api/v1/namespaces/ghost", document, manager="herdsman")
    await release(client, "ghost", "0-0-0-0", (PROJECT,))
    assert "ghost" not in await looker.run("get", "namespaces", "-o", "name")
    await looker.run("create", "namespace", "ghost")
    await looker.run("label", "namespace", "ghost", f"{PROJECT}=theirs")
    before = await namespace(looker, "ghost")
    with pytest.raises(errors.Invalid, match="uid"):
        await client.apply("/api/v1/namespaces/ghost", document, manager="herdsman")
    await release(client, "ghost", "0-0-0-0", (PROJECT,))
    assert await namespace(looker, "ghost") == before
    await looker.run("delete", "namespace", "ghost", "--wait=false")
