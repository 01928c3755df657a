"""Projects that people make by themselves, from what somebody with more rights wrote down."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from libs.common import errors
from libs.common.apiserver.creator import creator_of
from libs.common.contracts.messages import ProjectMake, ResourceWrite
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.projects import Project, ProjectTemplate
from services.project.template_strategy import ProjectTemplateStrategy
from services.project.templates import TemplateMaker
from tests.access import made
from tests.project.test_projects import means, project, strategy
from tests.project.test_rights import ADA, BOB, EVE, running

USES = made.role(
    "uses", "global", hub=[{**made.hub_rule("create", "projecttemplates/projects"), "resourceNames": ["sandbox"]}]
)


def template(name: str = "sandbox", **spec) -> ProjectTemplate:
    return ProjectTemplate.model_validate(
        {"metadata": {"name": name}, "spec": {"clusters": ["east"], "quota": {"pods": "10"}, **spec}}
    )


@asynccontextmanager
async def having(clock, *bindings, **spec):
    async with running(clock) as (hub, _):
        await hub.put(USES, made.binding(EVE, "uses", everywhere=True), *bindings)
        strategies = {
            "projects": strategy(hub),
            "projecttemplates": ProjectTemplateStrategy(hub.objects(RoleTemplateBinding)),
        }
        writing = hub.writer("project", strategies)
        await hub.write(writing, ADA, "create", template(**spec))
        yield hub, writing


async def make(hub, who, name: str, of: str = "sandbox"):
    reply = await TemplateMaker(means(hub)).handle(
        ProjectMake(identity=hub.envelope(who), template=of, name=name, description="mine")
    )
    await hub.settle()
    return reply


async def test_a_project_is_what_its_template_says_and_notes_its_maker(clock):
    async with having(clock, podSecurity="baseline", isolated=True, labels={"kind": "sandbox"}) as (hub, _):
        reply = await make(hub, EVE, "evas")
        stored = await hub.get(Project, "evas")
        assert reply.document == stored.to_document()
        entries = [(n.cluster, n.namespace, n.create, n.share) for n in stored.spec.namespaces]
        assert entries == [("east", "evas", True, {"pods": "10"})]
        assert (stored.spec.pod_security, stored.spec.isolated, stored.spec.labels) == (
            "baseline",
            True,
            {"kind": "sandbox"},
        )
        assert creator_of(stored) == EVE.status.principal_id
        assert stored.metadata.labels == {"management.herdsman.dev/template": "sandbox"}
        assert (await hub.stores["project"].get("nsof.east.evas")).revision


async def test_the_maker_changes_nothing_of_what_the_template_keeps_them_to(clock):
    async with having(clock) as (hub, writer):
        await make(hub, EVE, "evas")
        await hub.put(made.binding(EVE, "project-owner", project="evas", created=clock()))
        with pytest.raises(errors.Denied, match="projects/policies"):
            await hub.write(writer, EVE, "patch", "evas", plural="projects", body={"spec": {"quota": {"pods": "99"}}})


async def test_only_who_may_makes_one_and_what_may_not_be_seen_is_not_told(clock):
    async with having(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", template("other"))
        told = []
        for who, of in ((BOB, "sandbox"), (EVE, "other"), (BOB, "nothing"), (EVE, "nothing")):
            with pytest.raises(errors.HerdsmanError) as refused:
                await make(hub, who, "mine", of)
            told.append((type(refused.value), refused.value.message.replace(of, "…").replace(who.name, "…")))
        assert len(set(told)) == 1


async def test_a_name_that_is_taken_gives_nothing(clock):
    async with having(clock) as (hub, _):
        before = await hub.get(Project, "shop")
        with pytest.raises(errors.AlreadyExists):
            await make(hub, EVE, "shop")
        assert await hub.get(Project, "shop") == before
        with pytest.raises(errors.Invalid, match="belongs to the cluster itself"):
            await make(hub, EVE, "kube-mine")
        await make(hub, EVE, "evas")


async def test_a_cluster_of_the_template_that_is_gone_is_left_out(clock):
    async with having(clock, clusters=["east", "west"]) as (hub, _):
        await hub.delete(made.cluster("west"))
        await make(hub, EVE, "evas")
        entries = (await hub.get(Project, "evas")).spec.namespaces
        assert [(n.cluster, n.cluster_uid) for n in entries] == [("east", "uid-east")]


async def test_a_namespace_of_the_name_in_another_project_refuses_it(clock):
    async with having(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project("hidden", "east/evas"))
        with pytest.raises(errors.Invalid, match="in another project"):
            await make(hub, EVE, "evas")


async def test_nobody_has_more_than_the_template_gives_however_many_they_ask_for_at_once(clock):
    async with having(clock, maxPerPerson=2) as (hub, writer):
        outcomes = await asyncio.gather(*(make(hub, EVE, f"e{n}") for n in range(6)), return_exceptions=True)
        assert len([o for o in outcomes if not isinstance(o, BaseException)]) == 2
        assert all(isinstance(o, errors.Denied | errors.Conflict) for o in outcomes if isinstance(o, BaseException))
        mine = sorted(p.name for p in hub.objects(Project).all() if p.name.startswith("e"))
        with pytest.raises(errors.Denied, match=f'2 projects of template "sandbox" already.*{mine[0]}, {mine[1]}'):
            await make(hub, EVE, "more")
        await hub.write(writer, ADA, "delete", mine[0], plural="projects")
        await make(hub, EVE, "more")


async def test_who_writes_a_template_holds_all_that_it_gives(clock):
    writes = made.role("writes", "global", hub=[made.hub_rule("create update patch get", "projecttemplates")])
    steps = [
        (made.role("creates", "global", hub=[made.hub_rule("create", "projects")]), "right to create projects is missing"),
        (made.role("sets", "global", hub=[made.hub_rule("update", "projects/policies")]), "projects/policies is missing"),
        (made.role("hands", "global", hub=[made.hub_rule("update", "clusters")]), "right to update cluster east is missing"),
    ]  # fmt: skip
    async with having(clock, writes, made.binding(BOB, "writes", everywhere=True)) as (hub, writer):
        for role, lacking in steps:
            with pytest.raises(errors.Denied, match=lacking):
                await hub.write(writer, BOB, "create", template("bobs"))
            with pytest.raises(errors.Denied, match=lacking):
                await hub.write(
                    writer, BOB, "patch", "sandbox", plural="projecttemplates", body={"spec": {"quota": None}}
                )
            await hub.put(role, made.binding(BOB, role.name, everywhere=True))
        with pytest.raises(errors.Denied, match=r"gives rights that you lack.*\(in cluster east\)"):
            await hub.write(writer, BOB, "create", template("bobs"))
        await hub.put(made.binding(BOB, "cluster-owner", cluster="east"))
        await hub.write(writer, BOB, "create", template("bobs"))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"clusters": ["gone"]}, "spec.clusters[0]"), ({"clusters": ["east", "east"]}, "spec.clusters[1]"),
        ({"quota": {"pods": "x"}}, "spec.quota[pods]"), ({"labels": {"k8s.io/x": "y"}}, "spec.labels[k8s.io/x]"),
        ({"maxPerPerson": 0}, "spec.maxPerPerson"),
    ],
)  # fmt: skip
async def test_what_is_wrong_in_a_template_is_refused_with_its_field(clock, spec, field):
    async with having(clock) as (hub, writer):
        body = {"metadata": {"name": "bad"}, "spec": {"clusters": ["east"], **spec}}
        request = ResourceWrite(identity=hub.envelope(ADA), verb="create", plural="projecttemplates", body=body)
        with pytest.raises(errors.Invalid) as refused:
            await writer.handle(request)
        assert field in [c.field for c in refused.value.causes]
