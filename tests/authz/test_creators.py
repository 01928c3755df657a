"""Who makes a cluster or a project is given the roles that are meant for its maker: once, and with what the hub itself noted."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.apiserver.creator import CREATOR
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project
from services.authz.builtins import ensure_builtins
from services.authz.creators import CreatorDefaults
from services.authz.rules import check_template
from services.authz.strategies import RoleTemplateStrategy
from services.cluster_controller.strategies import ClusterStrategy
from tests.access import made
from tests.access.hub import running_hub
from tests.project.test_projects import strategy

ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")
MAKER = made.role("maker", "global", hub=[made.hub_rule("create update patch get", "clusters projects")])
EDITOR = made.role("editor", "global", hub=[made.hub_rule("*", "roletemplates")])


class Making:
    def __init__(self, hub) -> None:
        self.hub = hub
        self.defaults = CreatorDefaults(
            hub.stores["authz"], hub.stores.__getitem__, hub.objects(RoleTemplate), hub.objects(Cluster), hub.objects(Project), hub.live, hub.now
        )  # fmt: skip
        self.clusters = hub.writer("cluster_controller", {"clusters": ClusterStrategy(hub.live.bindings)})
        self.projects = hub.writer("project", {"projects": strategy(hub)})
        self.roles = hub.writer(
            "authz", {"roletemplates": RoleTemplateStrategy(hub.objects(RoleTemplate), hub.live.bindings)}
        )

    async def cluster(self, who, name: str = "east", **annotations: str) -> Cluster:
        made_cluster = Cluster.model_validate({"metadata": {"name": name, "annotations": annotations}})
        await self.hub.write(self.clusters, who, "create", made_cluster)
        await self.settle(f"clusters/{name}")
        return await self.hub.get(Cluster, name)

    async def project(self, who, *namespaces: dict, name: str = "shop") -> Project:
        spec = {"namespaces": list(namespaces)}
        await self.hub.write(
            self.projects, who, "create", Project.model_validate({"metadata": {"name": name}, "spec": spec})
        )
        await self.settle(f"projects/{name}")
        return await self.hub.get(Project, name)

    async def settle(self, key: str) -> None:
        await self.defaults.reconcile(key)
        await self.hub.settle()

    def bound(self) -> list[tuple[str, str]]:
        return sorted((f.principal, f.role) for f in self.hub.live.bindings.of_principal(BOB.status.principal_id))


@asynccontextmanager
async def making(clock):
    """Ada may everything, Bob makes clusters and projects, Eve edits roles."""
    async with running_hub(clock) as hub:
        await ensure_builtins(hub.stores["authz"], clock)
        await hub.settle()
        await hub.put(
            ADA, BOB, EVE, MAKER, EDITOR, made.binding(ADA, "admin", everywhere=True), made.binding(ADA, "cluster-owner", everywhere=True),
            made.binding(BOB, "maker", everywhere=True), made.binding(EVE, "editor", everywhere=True),
        )  # fmt: skip
        yield Making(hub)


async def test_who_makes_a_cluster_owns_it_and_no_other(clock):
    async with making(clock) as m:
        await m.hub.put(made.cluster("west"))
        east = await m.cluster(BOB)
        grants = m.hub.live.current
        assert grants.synthetic_groups(made.caller(BOB), "east", east.uid) == ("herdsman:cluster:east:cluster-owner",)
        assert grants.synthetic_groups(made.caller(BOB), "west", "uid-west") == ()
        (binding,) = [b for b in m.hub.objects(RoleTemplateBinding).all() if b.spec.scope.cluster]
        assert binding.spec.reason == "made the cluster"
        assert (binding.spec.user, binding.spec.principal) == (BOB.name, BOB.status.principal_id)
        assert binding.spec.scope.cluster_uid == east.uid


async def test_who_makes_a_project_owns_it(clock):
    async with making(clock) as m:
        await m.project(BOB)
        assert m.hub.live.current.held_projects(made.caller(BOB)) == {"shop"}


async def test_a_project_of_namespaces_that_were_there_lets_its_maker_into_none_of_them(clock):
    async with making(clock) as m:
        await m.hub.put(made.cluster("west"))
        await m.project(BOB, {"cluster": "west", "namespace": "payments"})
        assert m.hub.live.current.held_projects(made.caller(BOB)) == set()
        await m.settle("projects/shop")
        assert m.hub.live.current.synthetic_groups(made.caller(BOB), "west", "uid-west") == ()


async def test_what_was_revoked_stays_revoked(clock):
    async with making(clock) as m:
        await m.cluster(BOB)
        (binding,) = [b for b in m.hub.objects(RoleTemplateBinding).all() if b.spec.scope.cluster]
        await m.hub.delete(binding)
        await m.settle("clusters/east")
        assert m.bound() == [(BOB.status.principal_id, "maker")]


async def test_a_cluster_made_again_is_its_new_makers_and_nothing_is_noted_of_the_first(clock):
    async with making(clock) as m:
        first = await m.cluster(BOB)
        await m.defaults.forget(f"clusters/east/{first.uid}")
        assert (await m.hub.stores["authz"].get(f"creator.{first.uid}")).value, "it is there still"
        await m.hub.delete(first)
        second = await m.cluster(ADA)
        await m.defaults.forget(f"clusters/east/{first.uid}")
        with pytest.raises(errors.NotFound):
            await m.hub.stores["authz"].get(f"creator.{first.uid}")
        assert m.hub.live.current.synthetic_groups(made.caller(BOB), "east", second.uid) == ()
        assert await m.hub.stores["authz"].get(f"creator.{second.uid}")


async def test_nobody_says_who_made_it_but_the_hub(clock):
    async with making(clock) as m:
        east = await m.cluster(BOB, **{CREATOR: ADA.status.principal_id, "team": "shop"})
        assert east.metadata.annotations == {CREATOR: BOB.status.principal_id, "team": "shop"}
        for text in (EVE.status.principal_id, None):
            body = {"metadata": {"annotations": {CREATOR: text}}}
            await m.hub.write(m.clusters, BOB, "patch", "east", plural="clusters", body=body)
            assert (await m.hub.get(Cluster, "east")).metadata.annotations == east.metadata.annotations
        await m.hub.put(made.cluster("old"))
        body = {"metadata": {"annotations": {CREATOR: BOB.status.principal_id}}}
        await m.hub.write(m.clusters, BOB, "patch", "old", plural="clusters", body=body)
        assert not (await m.hub.get(Cluster, "old")).metadata.annotations
        await m.settle("clusters/old")
        assert m.hub.live.current.synthetic_groups(made.caller(BOB), "old", "uid-old") == ()


async def test_who_decides_what_makers_get_holds_it_everywhere(clock):
    async with making(clock) as m:
        viewer = made.role("seer", "cluster", rules=[made.rule("get", "secrets")])
        viewer.spec.creator_default = True
        with pytest.raises(errors.Denied, match=r"given to makers.*get secrets"):
            await m.hub.write(m.roles, EVE, "create", viewer)
        plain = viewer.model_copy(deep=True)
        plain.spec.creator_default = None
        await m.hub.write(m.roles, EVE, "create", plain)
        for who, allowed in ((EVE, False), (ADA, True)):
            body = {"spec": {"creatorDefault": True}}
            try:
                await m.hub.write(m.roles, who, "patch", "seer", plural="roletemplates", body=body)
            except errors.Denied:
                assert not allowed
            else:
                assert allowed
        parent = made.role("parent", "cluster")
        await m.hub.write(m.roles, ADA, "create", parent)
        await m.hub.write(
            m.roles, ADA, "patch", "seer", plural="roletemplates", body={"spec": {"inherits": ["parent"]}}
        )
        more = {"spec": {"rules": [made.rule("delete", "pods")]}}
        with pytest.raises(errors.Denied, match="delete pods"):
            await m.hub.write(m.roles, EVE, "patch", "parent", plural="roletemplates", body=more)


async def test_a_hub_whose_makers_shall_own_nothing_says_so_on_the_built_in_role_and_an_upgrade_keeps_it(clock):
    async with making(clock) as m:
        off = {"spec": {"creatorDefault": False}}
        await m.hub.write(m.roles, ADA, "patch", "cluster-owner", plural="roletemplates", body=off)
        with pytest.raises(errors.Invalid, match="except creatorDefault"):
            await m.hub.write(
                m.roles,
                ADA,
                "patch",
                "cluster-owner",
                plural="roletemplates",
                body={"spec": {"rules": [], **off["spec"]}},
            )
        await ensure_builtins(m.hub.stores["authz"], clock)
        assert (await m.hub.get(RoleTemplate, "cluster-owner")).spec.creator_default is False
        await m.cluster(BOB)
        assert m.bound() == [(BOB.status.principal_id, "maker")]


def test_a_global_role_has_no_makers():
    role = made.role("r", "global")
    role.spec.creator_default = True
    assert [c.field for c in check_template(role, {})] == ["spec.creatorDefault"]
