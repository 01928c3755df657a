"""Apply, prune, enforce and detach against a real API server, looked at with kubectl."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from integration.agent.looking import HUB_GROUP, Looker, eventually
from integration.kubelab.cluster import Cluster
from libs.common.access.roles import resolve_roles
from libs.common.bus.base import Message
from libs.common.bus.memory import MemoryBus
from libs.common.bus.wire import unpack
from libs.common.contracts import messages as m
from libs.common.contracts.methods import GET_DESIRED, REPORT_APPLIED
from libs.common.kube.client import KubeClient
from libs.common.kube.discovery import Discovery
from libs.common.kube.objects import content_hash
from libs.common.resources.access import PolicyRule, RoleTemplate
from libs.common.resources.projects import Project
from services.agent.apply import Applier
from services.agent.desired import DesiredKeeper
from services.agent.detach import Detacher
from services.agent.state import FileState, Kept
from services.cluster_controller.render import render_desired, select_desired
from tests.cluster_controller.made import ROLES, role

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(180)]
UID = "uid-1"
PODS = PolicyRule(verbs=["get", "list"], api_groups=[""], resources=["pods"])


class HubSide:
    """The hub's two answers, with the hub's own renderer."""

    def __init__(self, roles: list[RoleTemplate]) -> None:
        self.roles = roles
        self.projects: list[Project] = []
        self.extra: list[m.DesiredPart] = []
        self.detach = False
        self.reports: list[m.AppliedReport] = []

    async def desired(self, message: Message) -> m.DesiredSet:
        query = m.DesiredQuery.model_validate(unpack(message.data))
        if self.detach:
            return m.DesiredSet(hash="", names=[], parts=[], detach=True)
        return select_desired(
            [*render_desired(resolve_roles(self.roles), "edge", self.projects), *self.extra], query.have
        )

    async def applied(self, message: Message) -> m.Empty:
        self.reports.append(m.AppliedReport.model_validate(unpack(message.data)))
        return m.Empty()


class Setup:
    def __init__(self, client: KubeClient, folder: Path, hub: HubSide) -> None:
        self.client, self.hub, self.bus = client, hub, MemoryBus()
        self.discovery = Discovery(client)
        self.state = FileState(folder)
        self.kept = Kept()
        self.detacher = Detacher(client, self.discovery, self.bus, UID, self.state)
        self.applier = Applier(client, self.discovery)
        self.keeper = DesiredKeeper(self.bus, UID, self.state, self.kept, self.applier, self.detacher.run)

    async def __aenter__(self) -> Setup:
        self._contexts = [
            self.bus.serve(GET_DESIRED.subject, self.hub.desired, queue="hub"),
            self.bus.serve(REPORT_APPLIED.subject, self.hub.applied, queue="hub"),
        ]
        for context in self._contexts:
            await context.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        for context in reversed(self._contexts):
            await context.__aexit__(None, None, None)
        self.state.close()


def part(name: str, *objects: dict[str, Any]) -> m.DesiredPart:
    return m.DesiredPart(name=name, hash=content_hash(objects), objects=list(objects))


def config(name: str, text: str = "1") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"k": text},
    }


async def test_roles_are_applied_pruned_and_put_right_again(client: KubeClient, looker: Looker, tmp_path: Path) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        assert await s.keeper.pull()
        reports = await s.keeper.enforce()
        assert [(r.name, r.objects, r.error) for r in reports] == [("roles", 7, "")]
        ours = [
            "ClusterRole/herdsman:cluster-owner", "ClusterRole/herdsman:cluster-viewer", HUB_GROUP[0],
            "ClusterRole/herdsman:project-member", "ClusterRoleBinding/herdsman:cluster-owner", "ClusterRoleBinding/herdsman:cluster-viewer",
            HUB_GROUP[1],
        ]  # fmt: skip
        assert await looker.labelled() == ours
        assert await looker.with_finalizers() == []
        versions = {n: (await looker.get(*n.split("/")))["metadata"]["resourceVersion"] for n in ours}

        # A second round writes nothing: the API server's own defaults are no drift.
        await s.keeper.enforce()
        assert versions == {n: (await looker.get(*n.split("/")))["metadata"]["resourceVersion"] for n in ours}

        # Somebody widens a role by hand, and takes others away.
        await looker.run(
            "patch",
            "clusterrole",
            "herdsman:cluster-viewer",
            "--type=merge",
            "-p",
            '{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}',
        )
        await looker.run("delete", "clusterrolebinding", "herdsman:cluster-viewer")
        await looker.run("delete", "clusterrole", "herdsman:project-member")
        reports = await s.keeper.enforce()
        assert [r.error for r in reports] == [""]
        assert (await looker.get("clusterrole", "herdsman:cluster-viewer"))["rules"][0]["verbs"] == [
            "get",
            "list",
            "watch",
        ]
        again = await looker.get("clusterrolebinding", "herdsman:cluster-viewer")
        assert again["roleRef"]["name"] == "herdsman:cluster-viewer"
        assert again["subjects"][0]["name"] == "herdsman:cluster:edge:cluster-viewer"
        assert await looker.labelled() == ours

        # The hub drops a role and narrows another.
        s.hub.roles = [role("cluster-viewer", "cluster", PODS)]
        assert await s.keeper.pull()
        await s.keeper.enforce()
        assert await looker.labelled() == [
            "ClusterRole/herdsman:cluster-viewer", HUB_GROUP[0], "ClusterRoleBinding/herdsman:cluster-viewer", HUB_GROUP[1],
        ]  # fmt: skip
        assert (await looker.get("clusterrole", "herdsman:cluster-viewer"))["rules"][0]["verbs"] == ["get", "list"]


async def test_a_part_that_goes_takes_its_objects_along_and_strangers_stay(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    stranger = config("stranger")
    stranger["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "herdsman"}
    async with Setup(client, tmp_path, HubSide([])) as s:
        await looker.apply(stranger)
        s.hub.extra = [part("workloads/a", config("herdsman-a")), part("workloads/b", config("herdsman-b"))]
        await s.keeper.pull()
        await s.keeper.enforce()
        assert await looker.named() == [*HUB_GROUP, "ConfigMap/herdsman-a", "ConfigMap/herdsman-b"]
        s.hub.extra = s.hub.extra[1:]
        await s.keeper.pull()
        await s.keeper.enforce()
        assert await looker.named() == [*HUB_GROUP, "ConfigMap/herdsman-b"]
        assert await s.detacher.remove() == []
        assert await looker.named() == []
        assert await looker.labelled() == ["ConfigMap/stranger"], "one label alone is not ours"
        await looker.run("delete", "configmap", "stranger")


async def test_what_the_api_server_refuses_is_reported_and_the_rest_is_applied(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        bad = config("Herdsman_Bad")
        unknown = {"apiVersion": "nowhere.example/v1", "kind": "Nothing", "metadata": {"name": "x"}}
        evil = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "herdsman:evil"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:authenticated"}]}  # fmt: skip
        s.hub.extra = [part("a", bad), part("b", unknown), part("c", evil, config("herdsman-fine"))]
        await s.keeper.pull()
        reports = {r.name: r.error for r in await s.keeper.enforce()}
        assert "Herdsman_Bad" in reports["a"]
        assert "no API version nowhere.example/v1" in reports["b"]
        assert "refuses what the hub asked for" in reports["c"]
        assert reports["roles"] == ""
        assert "ClusterRoleBinding/herdsman:evil" not in await looker.named()
        assert "ConfigMap/herdsman-fine" in await looker.named()
        assert s.keeper.applied.keys() == {"roles"}
        s.hub.extra = []
        await s.keeper.pull()
        assert {r.name: r.error for r in await s.keeper.enforce()} == {"roles": ""}, (
            "what is wanted no more failed no more"
        )
        assert await s.detacher.remove() == []


async def test_detach_leaves_nothing_and_says_so(client: KubeClient, looker: Looker, tmp_path: Path) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        s.hub.extra = [part("workloads/a", config("herdsman-a"))]
        running = asyncio.create_task(s.keeper.run())
        await eventually(lambda: s.hub.reports)
        assert {p.name: p.error for p in s.hub.reports[0].parts} == {"roles": "", "workloads/a": ""}
        assert len(await looker.labelled()) == 8
        s.hub.detach = True
        s.keeper.notice()
        await asyncio.wait_for(running, 60)
        assert s.hub.reports[-1].detached
        assert s.hub.reports[-1].left == []
        assert await looker.labelled() == []
        assert await looker.named() == []
        assert await s.state.load_kept() == Kept()


async def test_an_object_that_a_stranger_holds_is_named_as_left(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path, HubSide([])) as s:
        s.hub.extra = [part("workloads/a", config("herdsman-held"))]
        await s.keeper.pull()
        await s.keeper.enforce()
        await looker.run(
            "patch",
            "configmap",
            "herdsman-held",
            "--type=merge",
            "-p",
            '{"metadata":{"finalizers":["example.com/held"]}}',
        )
        left = await Detacher(client, s.discovery, s.bus, UID, s.state, budget_s=2.0).remove()
        assert left == ['ConfigMap "herdsman-held" in namespace "default" is still there']
        await looker.run(
            "patch", "configmap", "herdsman-held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
        )


async def test_the_last_set_stays_enforced_while_the_hub_is_away_and_after_a_restart(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        await s.keeper.pull()
        await s.keeper.enforce()
    await looker.run("delete", "clusterrolebinding", "herdsman:cluster-viewer")
    async with Setup(client, tmp_path, HubSide([])) as s:
        s.bus.disconnect()
        kept = await s.state.load_kept()
        keeper = DesiredKeeper(s.bus, UID, s.state, kept, Applier(client, s.discovery), s.detacher.run)
        running = asyncio.create_task(keeper.run())
        await eventually(lambda: keeper.applied)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert "ClusterRoleBinding/herdsman:cluster-viewer" in await looker.labelled()
        assert await s.detacher.remove() == []


async def test_an_agent_that_never_heard_the_hub_removes_nothing(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path / "a", HubSide(list(ROLES))) as s:
        await s.keeper.pull()
        await s.keeper.enforce()
    async with Setup(client, tmp_path / "b", HubSide([])) as s:
        s.bus.disconnect()
        running = asyncio.create_task(s.keeper.run())
        await asyncio.sleep(1.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert len(await looker.labelled()) == 7
        assert await s.detacher.remove() == []


async def test_applying_waits_for_an_api_server_that_is_away(
    cluster: Cluster, client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        running = asyncio.create_task(s.keeper.run())
        await cluster.kill("kube-apiserver")
        await eventually(lambda: s.hub.reports)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert [p.error for p in s.hub.reports[0].parts] == [""]
        assert len(await looker.labelled()) == 7
        assert await s.detacher.remove() == []
