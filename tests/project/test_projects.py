from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.reconcile import DONE
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project
from services.project import system
from services.project.claims import Claims
from services.project.means import Means
from services.project.reconciler import ProjectReconciler
from services.project.strategies import ProjectStrategy
from tests.access import made
from tests.access.hub import ADMIN, running_hub

ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")
MAKER = made.role(
    "maker", "global", hub=[made.hub_rule("create get update patch", "projects"), made.hub_rule("update", "projects/namespaces")]
)  # fmt: skip
OWNER = made.role("owner", "cluster", hub=[made.hub_rule("update", "clusters")])


def project(name: str, *places: str) -> Project:
    namespaces = [dict(zip(("cluster", "namespace"), p.split("/"), strict=True)) for p in places]
    return Project.model_validate({"metadata": {"name": name}, "spec": {"namespaces": namespaces}})


def namespaces(*places: str) -> dict:
    return {"spec": project("x", *places).spec.to_document()}


def strategy(hub) -> ProjectStrategy:
    return ProjectStrategy(
        Claims(hub.stores["project"], hub.objects(Project)), hub.objects(Cluster), hub.objects(RoleTemplateBinding)
    )


def means(hub) -> Means:
    claims = Claims(hub.stores["project"], hub.objects(Project))
    return Means(hub.stores["project"], claims, strategy(hub), hub.verifier, hub.live, hub.now)


@asynccontextmanager
async def running(clock):
    async with running_hub(clock) as hub:
        await hub.put(ADA, BOB, EVE, ADMIN, MAKER, OWNER, made.cluster("east"), made.cluster("west"))
        await hub.put(
            made.binding(ADA, "admin", everywhere=True),
            made.binding(BOB, "maker", everywhere=True),
            made.binding(BOB, "owner", cluster="east"),
        )
        yield hub, hub.writer("project", {"projects": strategy(hub)})


async def test_a_maker_who_owns_the_cluster_groups_its_namespaces(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, BOB, "create", project("shop", "east/web", "east/db"))
        assert len((await hub.get(Project, "shop")).spec.namespaces) == 2


async def test_nobody_puts_in_namespaces_of_a_cluster_they_may_not_update(clock):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Denied, match="right to update cluster west is missing"):
            await hub.write(writer, BOB, "create", project("shop", "east/web", "west/web"))
        with pytest.raises(errors.Denied, match="right to update cluster gone is missing"):
            await hub.write(writer, BOB, "create", project("shop", "gone/web"))
        with pytest.raises(errors.HerdsmanError) as refused:
            await hub.write(writer, EVE, "create", project("shop"))
        assert isinstance(refused.value, errors.Denied | errors.NotFound)
        await hub.write(writer, ADA, "create", project("shop", "west/web"))
        with pytest.raises(errors.Denied, match="west"):
            await hub.write(writer, BOB, "patch", "shop", plural="projects", body={"spec": {"namespaces": []}})
        with pytest.raises(errors.Denied, match="west"):
            await hub.write(writer, BOB, "patch", "shop", plural="projects", body=namespaces("west/web", "west/more"))
        await hub.write(writer, BOB, "patch", "shop", plural="projects", body=namespaces("west/web", "east/web"))


async def test_a_namespace_is_in_one_project_once(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project("shop", "east/web"))
        with pytest.raises(errors.Invalid, match='in project "shop"'):
            await hub.write(writer, ADA, "create", project("other", "east/web"))
        with pytest.raises(errors.Invalid, match="Duplicate value"):
            await hub.write(writer, ADA, "create", project("twice", "east/a", "east/a"))
        await hub.write(writer, ADA, "create", project("other", "west/web"))


@pytest.mark.parametrize(
    "place", ["east/default", "east/kube-system", "east/kube-anything", "east/herdsman-system", "east/openshift-etcd", "west/infra-db"]
)  # fmt: skip
async def test_the_clusters_own_namespaces_are_in_no_project(clock, place):
    west = made.cluster("west")
    west.metadata.annotations = {system.ANNOTATION: "infra-*, vault"}
    async with running(clock) as (hub, writer):
        await hub.put(west)
        with pytest.raises(
            errors.Invalid, match=r"spec.namespaces\[1\].namespace: Forbidden: .* belongs to the cluster itself"
        ):
            await hub.write(writer, ADA, "create", project("shop", "east/infra-db", place))


async def test_the_name_is_a_label_and_the_status_the_hubs(clock):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Invalid):
            await hub.write(writer, ADA, "create", project("a.b"))
        await hub.write(writer, ADA, "create", project("shop"))
        with pytest.raises(errors.Denied):
            await hub.write(
                writer,
                ADA,
                "patch",
                "shop",
                plural="projects",
                subresource="status",
                body={"status": {"observedGeneration": 9}},
            )


def reconciler(hub) -> ProjectReconciler:
    store, projects = hub.stores["project"], hub.objects(Project)
    return ProjectReconciler(
        store, hub.stores["cluster_controller"], projects, Claims(store, projects), lambda _key: False, hub.now
    )


async def test_namespaces_of_a_deleted_cluster_leave(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project("shop", "east/web", "west/web"))
        await hub.delete(made.cluster("west"))
        assert await reconciler(hub).reconcile("shop") == DONE
        stored = await hub.get(Project, "shop")
        assert [n.cluster for n in stored.spec.namespaces] == ["east"]
        assert stored.metadata.generation == 2
        assert {e.key: e.deleted for e in hub.stores["project"]._last.values() if e.key.startswith("nsof.")} == {
            "nsof.east.web": False, "nsof.west.web": True,
        }  # fmt: skip
        await hub.settle()
        before = stored.metadata.resource_version
        await reconciler(hub).reconcile("shop")
        assert (await hub.get(Project, "shop")).metadata.resource_version == before


async def test_namespaces_of_a_cluster_leave_though_another_has_its_name_by_then(clock):
    """CVE-2023-22647's kind: else the project's members would have rights in the other cluster."""
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project("shop", "east/web", "west/web"))
        await hub.delete(made.cluster("west"))
        await hub.put(made.cluster("west", "uid-other"))
        assert await reconciler(hub).reconcile("shop") == DONE
        assert [n.cluster for n in (await hub.get(Project, "shop")).spec.namespaces] == ["east"]
        await hub.write(writer, ADA, "patch", "shop", plural="projects", body=namespaces("east/web", "west/web"))
        forged = namespaces("east/web", "west/web")
        forged["spec"]["namespaces"][1]["clusterUid"] = "uid-west"
        await hub.write(writer, ADA, "patch", "shop", plural="projects", body=forged)
        stored = await hub.get(Project, "shop")
        assert [n.cluster_uid for n in stored.spec.namespaces] == ["uid-east", "uid-other"]
        assert await reconciler(hub).reconcile("shop") == DONE
        assert len((await hub.get(Project, "shop")).spec.namespaces) == 2


async def test_of_two_projects_with_one_namespace_the_older_keeps_it(clock):
    async with running(clock) as (hub, _):
        older, newer = project("older", "east/web"), project("newer", "east/web", "east/db")
        older.metadata, newer.metadata = made.meta("older"), made.meta("newer", created=clock())
        await hub.put(older, newer)
        for name in ("older", "newer"):
            await reconciler(hub).reconcile(name)
        assert [n.namespace for n in (await hub.get(Project, "older")).spec.namespaces] == ["web"]
        assert [n.namespace for n in (await hub.get(Project, "newer")).spec.namespaces] == ["db"]
