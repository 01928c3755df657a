"""Moving a namespace: in one step, by those who may take it out and bring it in."""

from __future__ import annotations

import asyncio

import pytest

from libs.common import errors
from libs.common.contracts.messages import NamespaceMove
from libs.common.resources.projects import Project
from services.project.moves import Mover
from tests.access import made
from tests.project.test_projects import means, project, reconciler, strategy
from tests.project.test_rights import ADA, BOB, EVE, MAX, running


def mover(hub) -> Mover:
    return Mover(means(hub))


async def move(hub, who, place: str, target: str, source: str = ""):
    cluster, namespace = place.split("/")
    request = NamespaceMove(
        identity=hub.envelope(who), cluster=cluster, namespace=namespace, project=target, source=source
    )
    moved = await mover(hub).handle(request)
    await hub.settle()
    return moved


async def places(hub, name) -> list[str]:
    return [f"{n.cluster}/{n.namespace}" for n in (await hub.get(Project, name)).spec.namespaces]


async def test_both_projects_change_in_one_step_and_share_their_quotas_anew(clock):
    async with running(clock) as (hub, writer):
        for name, places_there, pods in (("one", ("east/a", "east/b"), "10"), ("two", ("west/c",), "9")):
            fresh = project(name, *places_there)
            fresh.spec.quota = {"pods": pods}
            await hub.write(writer, ADA, "create", fresh)
        moved = await move(hub, ADA, "east/a", "two", source="one")
        one, two = await hub.get(Project, "one"), await hub.get(Project, "two")
        assert [(n.namespace, n.share) for n in one.spec.namespaces] == [("b", {"pods": "10"})]
        assert [(n.namespace, n.share) for n in two.spec.namespaces] == [("c", {"pods": "4"}), ("a", {"pods": "4"})]
        assert (one.metadata.generation, two.metadata.generation) == (2, 2)
        assert moved.source == one.to_document()
        assert moved.target == two.to_document()
        again = await move(hub, ADA, "east/a", "two")
        assert again.target == two.to_document()
        with pytest.raises(errors.Invalid, match='in project "two" now, not in "one"'):
            await move(hub, ADA, "east/a", "shop", source="one")


async def test_cve_2020_10676_who_moves_a_namespace_holds_every_right_that_the_project_gives(clock):
    async with running(clock, made.binding(BOB, "hand", cluster="east")) as (hub, writer):
        mine = project("mine", "east/secret")
        mine.spec.namespaces[0].create = True
        await hub.write(writer, ADA, "create", mine)
        await hub.put(made.binding(BOB, "project-owner", project="mine", created=clock()))
        await hub.put(made.binding(MAX, "project-member", project="mine", created=clock()))
        with pytest.raises(errors.Denied, match="its members would have rights there that you lack"):
            await move(hub, BOB, "east/secret", "shop")
        assert await places(hub, "mine") == ["east/secret"]
        await hub.put(made.binding(BOB, "cluster-owner", cluster="east"))
        await move(hub, BOB, "east/secret", "shop")
        assert await places(hub, "shop") == ["east/web", "east/secret"]
        assert not (await hub.get(Project, "shop")).spec.namespaces[1].create


async def test_who_owns_both_projects_and_nothing_of_the_cluster_moves_nothing(clock):
    """A namespace of a project with a quota would go to one without."""
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project("free", "east/other"))
        await hub.put(made.binding(BOB, "project-owner", project="free", created=clock()))
        with pytest.raises(errors.Denied, match="right to update cluster east is missing"):
            await move(hub, BOB, "east/web", "free")


async def test_what_somebody_may_not_see_is_told_in_the_same_words_as_what_is_not_there(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project("hidden", "east/secret"))
        told = []
        for place in ("east/secret", "east/nothing"):
            with pytest.raises(errors.NotFound) as refused:
                await move(hub, BOB, place, "shop")
            told.append(refused.value.message.replace(place, "…"))
        for target in ("hidden", "nothing"):
            with pytest.raises(errors.NotFound) as refused:
                await move(hub, BOB, "east/web", target)
            told.append(refused.value.message.replace(target, "…"))
        assert told[0] == told[1]
        assert told[2] == told[3]
        with pytest.raises(errors.Denied):
            await move(hub, EVE, "east/web", "shop")


async def test_a_namespace_that_does_not_fit_is_refused_with_the_field_of_its_new_project(clock):
    async with running(clock) as (hub, writer):
        full = project("full", "west/all")
        full.spec.quota, full.spec.namespaces[0].share = {"pods": "5"}, {"pods": "5"}
        await hub.write(writer, ADA, "create", full)
        with pytest.raises(errors.Invalid, match="nothing of the quota of 5 is left") as refused:
            await move(hub, ADA, "east/web", "full")
        assert refused.value.causes[0].field == "spec.namespaces[1].share[pods]"
        assert await places(hub, "shop") == ["east/web"]


async def test_of_many_who_move_and_take_one_namespace_at_once_one_has_it(clock):
    """Each with copies of its own that are behind: the claim decides."""
    async with running(clock) as (hub, writer):
        names = [f"p{index}" for index in range(5)]
        for name in names:
            await hub.write(writer, ADA, "create", project(name))

        async def take(name):
            writing = hub.writer("project", {"projects": strategy(hub)})
            body = {"spec": {"namespaces": [{"cluster": "east", "namespace": "wanted"}]}}
            await hub.write(writing, ADA, "patch", name, plural="projects", body=body)

        outcomes = await asyncio.gather(*(take(name) for name in names), return_exceptions=True)
        assert len([o for o in outcomes if o is None]) == 1
        assert all(isinstance(o, errors.Conflict | errors.Invalid) for o in outcomes if o is not None)
        await asyncio.gather(*(move(hub, ADA, "east/wanted", name) for name in names), return_exceptions=True)
        assert len([name for name in names if await places(hub, name)]) == 1


async def test_a_claim_that_was_left_behind_bars_nobody_and_what_has_none_is_claimed(clock):
    async with running(clock) as (hub, writer):
        old = project("old", "west/a")
        old.metadata = made.meta("old")
        await hub.put(old)
        await reconciler(hub).reconcile("old")
        assert (await hub.stores["project"].get("nsof.west.a")).revision
        await hub.delete(old)
        await hub.write(writer, ADA, "create", project("new", "west/a"))
        await hub.write(writer, ADA, "delete", "new", plural="projects")
        with pytest.raises(errors.NotFound):
            await hub.stores["project"].get("nsof.west.a")
