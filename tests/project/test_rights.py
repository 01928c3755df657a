"""Who may bring namespaces into a project, take them out, and change what they are kept to."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from libs.common import errors
from libs.common.resources.projects import Project
from services.authz.builtins import render_builtins
from services.project.rights import MAKER_SETTLES_S
from tests.access import made
from tests.access.hub import running_hub
from tests.project.test_projects import namespaces, project, strategy

ADA, BOB, EVE, MAX = (made.user(name) for name in ("ada", "bob", "eve", "max"))
HAND = made.role("hand", "cluster", rules=[made.rule("get", "pods")], hub=[made.hub_rule("update", "clusters")])
KEEPER = made.role(
    "keeper",
    "project",
    hub=[made.hub_rule("get update patch", "projects"), made.hub_rule("update", "projects/policies")],
)


def built_in():
    for role in render_builtins():
        role.metadata = made.meta(role.name)
        yield role


@asynccontextmanager
async def running(clock, *bindings):
    """Ada owns everything. In project shop, which has east/web, Bob is owner and Eve member."""
    async with running_hub(clock) as hub:
        await hub.put(ADA, BOB, EVE, MAX, HAND, KEEPER, *built_in(), made.cluster("east"), made.cluster("west"))
        await hub.put(made.binding(ADA, "admin", everywhere=True), made.binding(ADA, "cluster-owner", everywhere=True))
        writer = hub.writer("project", {"projects": strategy(hub)})
        await hub.write(writer, ADA, "create", project("shop", "east/web"))
        now = clock()
        await hub.put(
            made.binding(BOB, "project-owner", project="shop", created=now),
            made.binding(EVE, "project-member", project="shop", created=now),
            *bindings,
        )
        yield hub, writer


async def bring(hub, writer, who, *places, create=()):
    body = namespaces("east/web", *places)
    for entry in body["spec"]["namespaces"]:
        entry["create"] = f"{entry['cluster']}/{entry['namespace']}" in create
    await hub.write(writer, who, "patch", "shop", plural="projects", body=body)
    return await hub.get(Project, "shop")


async def test_a_maker_brings_nothing_in_before_it_is_sure_which_roles_the_maker_is_given(clock):
    """Max makes projects and changes the cluster's object; authz has not yet said which role in the project is Max's."""
    maker = made.role("maker", "global", hub=[made.hub_rule("create get update patch", "projects projects/namespaces")])
    bound = made.binding(MAX, "maker", everywhere=True), made.binding(MAX, "hand", cluster="east", name="max-hand")
    async with running(clock, maker, *bound) as (hub, writer):
        await hub.write(writer, MAX, "create", project("mine"))
        body = namespaces("east/payments")
        with pytest.raises(errors.Denied, match="rights there that you lack"):
            await hub.write(writer, MAX, "patch", "mine", plural="projects", body=body)
        # Long enough without: authz hears of a project with namespaces that were found, and binds nobody.
        clock.forward(MAKER_SETTLES_S)
        await hub.write(writer, MAX, "patch", "mine", plural="projects", body=body)


async def test_cve_2020_10676_who_brings_a_namespace_in_holds_every_right_that_the_project_gives(clock):
    """Bob may change the cluster's object and the project, and reads no secrets in the cluster: nor through his project."""
    async with running(clock, made.binding(BOB, "hand", cluster="east")) as (hub, writer):
        with pytest.raises(
            errors.Denied, match=r"rights there that you lack.*create daemonsets.apps \(in cluster east\)"
        ):
            await bring(hub, writer, BOB, "east/payments")
        await hub.put(made.binding(BOB, "cluster-owner", cluster="east"))
        stored = await bring(hub, writer, BOB, "east/payments")
        assert [n.namespace for n in stored.spec.namespaces] == ["web", "payments"]


async def test_a_right_for_an_hour_brings_nothing_in_for_good(clock):
    hour = made.binding(BOB, "cluster-owner", cluster="east", until=clock() + timedelta(hours=1))
    async with running(clock, hour) as (hub, writer):
        with pytest.raises(errors.Denied, match="or hold for a shorter time"):
            await bring(hub, writer, BOB, "east/payments")


async def test_roles_of_an_earlier_project_of_the_name_count_for_nothing(clock):
    early = made.binding(MAX, "project-owner", project="other", created=clock() - timedelta(days=1))
    async with running(clock, early, made.binding(BOB, "hand", cluster="east")) as (hub, writer):
        await hub.put(made.role("maker", "global", hub=[made.hub_rule("create", "projects")]))
        await hub.put(made.binding(BOB, "maker", everywhere=True))
        await hub.write(writer, BOB, "create", project("other", "east/free"))


async def test_who_owns_a_project_has_new_namespaces_made_where_it_is_already(clock):
    async with running(clock) as (hub, writer):
        stored = await bring(hub, writer, BOB, "east/fresh", create={"east/fresh"})
        assert stored.spec.namespaces[1].create
        with pytest.raises(errors.Denied, match="right to update cluster west is missing"):
            await bring(hub, writer, BOB, "east/fresh", "west/fresh", create={"east/fresh", "west/fresh"})
        with pytest.raises(errors.Denied, match="right to update cluster east is missing"):
            await bring(hub, writer, BOB, "east/fresh", "east/payments")
        with pytest.raises(errors.HerdsmanError) as refused:
            await bring(hub, writer, EVE, "east/fresh", "east/more", create={"east/more"})
        assert isinstance(refused.value, errors.Denied)


async def test_who_makes_a_project_with_new_namespaces_holds_there_what_a_project_can_give(clock):
    """Its maker may be given a role in it at once, and so a foothold in a cluster where they had none."""
    maker = made.role("maker", "global", hub=[made.hub_rule("create", "projects")])
    fresh = project("fresh", "east/new")
    fresh.spec.namespaces[0].create = True
    async with running(clock, made.binding(BOB, "hand", cluster="east")) as (hub, writer):
        await hub.put(maker, made.binding(BOB, "maker", everywhere=True))
        with pytest.raises(errors.Denied, match="rights there that you lack"):
            await hub.write(writer, BOB, "create", fresh)
        await hub.put(made.binding(BOB, "cluster-owner", cluster="east"))
        await hub.write(writer, BOB, "create", fresh)


async def test_a_namespace_that_the_hub_made_never_becomes_one_that_was_found(clock):
    """Otherwise who may only make new ones would bring in what is there: ask for a new one, then say it is not new."""
    async with running(clock) as (hub, writer):
        await bring(hub, writer, BOB, "east/fresh", create={"east/fresh"})
        stored = await bring(hub, writer, BOB, "east/fresh")
        assert [n.create for n in stored.spec.namespaces] == [False, True]
        stored = await bring(hub, writer, BOB, "east/fresh", create={"east/web", "east/fresh"})
        assert [n.create for n in stored.spec.namespaces] == [False, True]


async def test_taking_out_is_for_who_may_update_the_cluster_or_the_policies(clock):
    body = {"spec": {"namespaces": []}}
    async with running(clock, made.binding(MAX, "keeper", project="shop", created=clock())) as (hub, writer):
        with pytest.raises(errors.Denied, match="right to update cluster east is missing"):
            await hub.write(writer, BOB, "patch", "shop", plural="projects", body=body)
        await hub.write(writer, MAX, "patch", "shop", plural="projects", body=body)
        assert (await hub.get(Project, "shop")).spec.namespaces == []


@pytest.mark.parametrize(
    "change",
    [
        {"quota": {"pods": "10"}}, {"containerLimits": {"max": {"cpu": "2"}}}, {"isolated": True}, {"podSecurity": "privileged"},
        {"labels": {"team": "shop"}}, {"annotations": {"team": "shop"}},
    ],
)  # fmt: skip
async def test_who_is_limited_by_policies_does_not_change_them(clock, change):
    async with running(clock, made.binding(MAX, "keeper", project="shop", created=clock())) as (hub, writer):
        with pytest.raises(errors.Denied, match="the right to update projects/policies is missing") as refused:
            await hub.write(writer, BOB, "patch", "shop", plural="projects", body={"spec": change})
        assert f"spec.{next(iter(change))}" in refused.value.message
        await hub.write(writer, MAX, "patch", "shop", plural="projects", body={"spec": change})
        await hub.write(writer, BOB, "patch", "shop", plural="projects", body={"spec": {"description": "ours"}})
        undone = {"spec": {next(iter(change)): None}}
        with pytest.raises(errors.Denied, match="projects/policies"):
            await hub.write(writer, BOB, "patch", "shop", plural="projects", body=undone)


async def test_a_project_is_made_with_policies_by_those_who_may_change_them(clock):
    maker = made.role("maker", "global", hub=[made.hub_rule("create", "projects")])
    async with running(clock) as (hub, writer):
        await hub.put(maker, made.binding(BOB, "maker", everywhere=True))
        fresh = project("fresh")
        fresh.spec.pod_security = "privileged"
        with pytest.raises(errors.Denied, match=r"spec\.podSecurity"):
            await hub.write(writer, BOB, "create", fresh)
        await hub.write(writer, ADA, "create", fresh)
