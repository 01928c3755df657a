"""Somebody changes what is ours in the cluster: it is put right within seconds, the hub is told what and by whom, and nobody fights."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.agent.looking import Looker, eventually
from integration.agent.tests.test_apply import HubSide, Setup
from integration.agent.tests.test_namespaces import OURS, full_project, inside, namespace
from integration.harness.hub import eventually as hub_eventually
from libs.common.contracts import messages as m
from libs.common.kube.client import KubeClient
from services.agent.claims import PROJECT, PROJECT_UID
from services.agent.guard_owned import Guard
from services.agent.owned import MANAGED_BY, PART
from tests.cluster_controller.made import ROLES
from tests.cluster_controller.test_render_projects import project

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(240)]
SECONDS = 5.0
EVERYTHING = json.dumps({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]})
GATHER = json.dumps({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}})
EVE = json.dumps({"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}]})
SPACE = "guarded"


@asynccontextmanager
async def guarded(s: Setup) -> AsyncIterator[None]:
    """The keeper and the guard at work, as in an agent."""
    guard = Guard(s.client, s.discovery, s.applier, s.keeper)
    tasks = [asyncio.create_task(s.keeper.run(), name="keeper"), asyncio.create_task(guard.run(), name="guard")]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def state(looker: Looker) -> dict[str, Any]:
    """What is ours, but for what an API server counts."""
    kinds = "clusterroles,clusterrolebindings,rolebindings,resourcequotas,limitranges,networkpolicies"
    found = json.loads(await looker.run("get", kinds, "-A", "-l", f"{MANAGED_BY}=herdsman", "-o", "json"))["items"]
    found.append(await looker.get("namespace", SPACE))
    for item in found:
        for key in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"):
            item["metadata"].pop(key, None)
        item.pop("status", None)
    return {f"{i['kind']}/{i['metadata']['name']}": i for i in found}


def last(s: Setup) -> dict[str, m.PartReport]:
    return {part.name: part for part in s.hub.reports[-1].parts} if s.hub.reports else {}


TAMPERINGS = {
    "a role says more": ("patch", "clusterrole", "herdsman:project-member", "--type=merge", "-p", EVERYTHING),
    "a role gathers others' rules": ("patch", "clusterrole", "herdsman:cluster-viewer", "--type=merge", "-p", GATHER),
    "a role is gone": ("delete", "clusterrole", "herdsman:cluster-viewer"),
    "a role has lost its labels": ("label", "clusterrole", "herdsman:cluster-viewer", f"{MANAGED_BY}-", f"{PART}-"),
    "a role is another part's": ("label", "clusterrole", "herdsman:cluster-viewer", "--overwrite", f"{PART}=other"),
    "a binding has somebody else": ("patch", "clusterrolebinding", "herdsman:cluster-viewer", "--type=merge", "-p", EVE),
    "a binding is gone": ("delete", "clusterrolebinding", "herdsman:cluster-viewer"),
    "a binding has lost a label": ("label", "clusterrolebinding", "herdsman:cluster-viewer", f"{PART}-"),
    "a project's binding has somebody else": ("patch", "rolebinding", "herdsman:project-member", "-n", SPACE, "--type=merge", "-p", EVE),
    "a project's binding is gone": ("delete", "rolebinding", "herdsman:project-member", "-n", SPACE),
    "a quota is wider": ("patch", "resourcequota", "herdsman-project", "-n", SPACE, "--type=merge", "-p", '{"spec":{"hard":{"pods":"700"}}}'),
    "limits are gone": ("delete", "limitrange", "herdsman-project", "-n", SPACE),
    "an isolation is gone": ("delete", "networkpolicy", "herdsman-project", "-n", SPACE),
    "a namespace is not the project's": ("label", "namespace", SPACE, f"{PROJECT}-"),
    "a namespace is another project's": ("label", "namespace", SPACE, "--overwrite", f"{PROJECT}=other"),
    "a namespace is less safe": ("label", "namespace", SPACE, "--overwrite", "pod-security.kubernetes.io/enforce=privileged"),
    "a namespace has no uid": ("annotate", "namespace", SPACE, f"{PROJECT_UID}-"),
}  # fmt: skip


async def test_whatever_somebody_does_to_what_is_ours_is_put_right_within_seconds_and_told(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    await looker.run("create", "namespace", SPACE)
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        s.hub.projects = [full_project("web", SPACE)]
        async with guarded(s):
            await eventually(lambda: {n: p.error for n, p in last(s).items()} == {"roles": "", "projects/web": ""})
            await asyncio.sleep(2.5)  # the looks after the first listings
            before = await state(looker)
            took: dict[str, float] = {}
            for what, command in TAMPERINGS.items():
                repairs = {name: part.repairs for name, part in last(s).items()}
                await looker.run(*command)
                began = time.monotonic()
                while (now := await state(looker)) != before:
                    assert time.monotonic() - began < SECONDS, (
                        what,
                        {k: v for k, v in now.items() if before.get(k) != v},
                    )
                took[what] = time.monotonic() - began
                name = "projects/web" if SPACE in command else "roles"
                if what != "a role says more":
                    # The next one is put right after a pause that grows; here nobody fights.
                    s.keeper._results._drifts.clear()
                await eventually(lambda n=name, r=repairs: last(s)[n].repairs > r[n], SECONDS)
                assert last(s)[name].repaired, what
            told = last(s)
        print({what: round(seconds, 2) for what, seconds in took.items()})
        assert set(told) == {"roles", "projects/web"}
        assert await s.detacher.remove() == []
    await looker.run("delete", "namespace", SPACE, "--wait=false")


async def test_the_hub_is_told_who_changed_what(client: KubeClient, looker: Looker, tmp_path: Path) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        async with guarded(s):
            await eventually(lambda: last(s))
            await looker.run(
                "patch", "clusterrole", "herdsman:cluster-viewer", "--type=merge", "-p", EVERYTHING, "--field-manager=mallory"
            )  # fmt: skip
            await eventually(lambda: last(s)["roles"].repairs == 1, SECONDS)
            assert 'ClusterRole "herdsman:cluster-viewer" (changed by mallory at 20' in last(s)["roles"].repaired
        assert await s.detacher.remove() == []


async def test_two_who_fight_over_an_object_do_so_ever_more_slowly(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path, HubSide(list(ROLES))) as s:
        async with guarded(s):
            await eventually(lambda: last(s))
            path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/herdsman:cluster-viewer"
            until, changes = time.monotonic() + 12, 0
            while time.monotonic() < until:
                rules = (await client.get(path)).get("rules") or []  # none for the moment between taking and giving
                if rules and "*" not in rules[0]["verbs"]:
                    await client.merge(path, json.loads(EVERYTHING))
                    changes += 1
                await asyncio.sleep(0.02)
        # 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 6.4 s: without the pauses it would be some hundred.
        assert 4 <= changes <= 8
        assert await s.detacher.remove() == []


async def test_the_use_of_a_quota_is_no_tampering(client: KubeClient, looker: Looker, tmp_path: Path) -> None:
    await looker.run("create", "namespace", "busy")
    async with Setup(client, tmp_path, HubSide(ROLES[3:])) as s:
        s.hub.projects = [full_project("web", "busy")]
        s.hub.projects[0].spec.namespaces[0].share = {"count/configmaps": "20"}
        async with guarded(s):
            await eventually(lambda: last(s))
            await asyncio.sleep(2.5)  # the looks after the first listings
            looks: list[str] = []
            s.keeper.tampered = looks.append  # type: ignore[method-assign]
            path = "/api/v1/namespaces/busy/resourcequotas/herdsman-project"
            for number in range(5):
                await looker.run("create", "configmap", f"c{number}", "-n", "busy")

            async def is_counted() -> bool:
                # kube-root-ca.crt is there as well.
                return bool((await client.get(path))["status"].get("used") == {"count/configmaps": "6"})

            await hub_eventually(is_counted, 30)
            assert looks == []
            await looker.run(
                "patch",
                "resourcequota",
                "herdsman-project",
                "-n",
                "busy",
                "--type=merge",
                "-p",
                '{"spec":{"hard":{"pods":"1"}}}',
            )
            assert looks == [], "what others add beside is left, as everywhere"
            patch = '{"spec":{"hard":{"count/configmaps":"30"}}}'
            await looker.run("patch", "resourcequota", "herdsman-project", "-n", "busy", "--type=merge", "-p", patch)
            await eventually(lambda: looks, SECONDS)
        assert await s.detacher.remove() == []
    await looker.run("delete", "namespace", "busy", "--wait=false")


async def test_a_namespace_that_comes_goes_and_comes_again_is_noticed_each_time(
    client: KubeClient, looker: Looker, tmp_path: Path
) -> None:
    async with Setup(client, tmp_path, HubSide(ROLES[3:])) as s:
        s.hub.projects = [project("early", "edge/later")]
        async with guarded(s):
            await eventually(
                lambda: "not in the cluster" in last(s).get("projects/early", m.PartReport(name="", hash="")).error
            )
            for _ in range(2):
                await looker.run("create", "namespace", "later")
                await eventually(lambda: last(s)["projects/early"].error == "", SECONDS)
                assert await inside(looker, "later") == OURS[3:]
                assert (await namespace(looker, "later"))["labels"][PROJECT] == "early"
                await looker.run("delete", "namespace", "later")
                await eventually(lambda: "namespace" in last(s)["projects/early"].error, SECONDS)
        assert await s.detacher.remove() == []
