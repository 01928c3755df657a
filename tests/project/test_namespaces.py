"""Having a namespace made: who may, what is answered when, and what happens when the cluster has such a one already."""

from __future__ import annotations

import asyncio

import pytest

from libs.common import errors
from libs.common.contracts.messages import NamespaceCreate
from libs.common.resources.clusters import Cluster
from libs.common.resources.projects import Project
from services.project.namespaces import NamespaceMaker, News
from services.project.observed import Observed
from tests.access import made
from tests.project.test_moves import places
from tests.project.test_projects import means, project
from tests.project.test_rights import ADA, BOB, EVE, running
from tests.project.test_status import cluster, seen


class Side:
    """The service's method, and what its cluster's agent would tell."""

    def __init__(self, hub, wait_s: float = 5.0) -> None:
        self.hub, self.observed, self.news = hub, Observed(), News()
        self.observed.put("uid-east", seen("web", "theirs", complete=True))
        self.maker = NamespaceMaker(
            means(hub), hub.objects(Project), hub.objects(Cluster), self.observed, self.news, wait_s
        )
        hub.informers["clusters"].subscribe(lambda _change: self.news.tell(), replay=False)

    async def ask(self, who, place: str, name: str = "", token=None, **more):
        target, namespace = place.split("/")
        request = NamespaceCreate(
            identity=self.hub.envelope(who, **(token or {})), cluster=target, namespace=namespace, project=name, **more
        )
        return await self.maker.handle(request)

    def see(self, name: str, uid: str) -> None:
        self.observed.put("uid-east", seen(name, project=uid))
        self.news.tell()

    async def entered(self, name: str, place: str) -> None:
        written = asyncio.Event()
        end = self.hub.informers["projects"].subscribe(lambda _change: written.set(), replay=False)
        while place not in await places(self.hub, name):
            await written.wait()
            written.clear()
        end()


def applied(clock, **more):
    found = cluster("east", parts={"projects/shop": ""}, **more)
    found.status.applied[0].applied_at = clock()
    return found


async def test_it_is_answered_when_the_cluster_has_it_with_all_that_belongs_to_it(clock):
    async with running(clock) as (hub, _):
        await hub.put(cluster("east", parts={"projects/shop": ""}))
        side = Side(hub)
        asking = asyncio.create_task(side.ask(BOB, "east/fresh"))
        await side.entered("shop", "east/fresh")
        uid = (await hub.get(Project, "shop")).uid
        side.see("fresh", uid)
        await hub.put(applied(clock, behind=("projects/shop",)))
        await asyncio.sleep(0)
        assert not asking.done()
        await hub.put(applied(clock))
        answer = await asking
        assert (answer.project, answer.uid, answer.pending) == ("shop", "uid-fresh", "")
        stored = await hub.get(Project, "shop")
        assert [(n.namespace, n.create) for n in stored.spec.namespaces] == [("web", False), ("fresh", True)]


async def test_where_the_cluster_is_away_or_slow_it_is_asked_for_and_said_so(clock):
    async with running(clock) as (hub, _):
        side = Side(hub, wait_s=0.05)
        await hub.put(cluster("east", connected=False))
        assert "not connected" in (await side.ask(BOB, "east/fresh")).pending
        await hub.put(cluster("east"))
        answer = await side.ask(BOB, "east/slow", "shop")
        assert (answer.uid, answer.pending) == ("", "the cluster has not taken it over yet")
        assert await places(hub, "shop") == ["east/web", "east/fresh", "east/slow"]


async def test_what_somebody_else_made_at_that_moment_stays_theirs_and_the_entry_goes_again(clock):
    async with running(clock) as (hub, writer):
        await hub.put(cluster("east", parts={"projects/shop": ""}))
        await hub.write(writer, ADA, "patch", "shop", plural="projects", body={"spec": {"quota": {"pods": "10"}}})
        side = Side(hub)
        asking = asyncio.create_task(side.ask(BOB, "east/race"))
        await side.entered("shop", "east/race")
        side.see("race", "")
        with pytest.raises(errors.AlreadyExists, match='namespaces "race" already exists'):
            await asking
        stored = await hub.get(Project, "shop")
        assert [(n.namespace, n.share) for n in stored.spec.namespaces] == [("web", {"pods": "10"})]
        with pytest.raises(errors.NotFound):
            await hub.stores["project"].get("nsof.east.race")


async def test_what_is_there_is_told_in_the_same_words_wherever_it_is(clock):
    async with running(clock) as (hub, writer):
        await hub.write(writer, ADA, "create", project("hidden", "east/secret"))
        side = Side(hub)
        for name in ("web", "theirs", "secret"):
            with pytest.raises(errors.AlreadyExists, match=f'^namespaces "{name}" already exists$'):
                await side.ask(BOB, f"east/{name}")


async def test_what_is_in_other_clusters_is_told_to_nobody(clock):
    async with running(clock) as (hub, _):
        side = Side(hub)
        side.observed.put("uid-west", seen("secret", complete=True))
        told = []
        for place in ("west/secret", "west/nothing"):
            with pytest.raises(errors.Denied) as refused:
                await side.ask(BOB, place, "shop")
            told.append(refused.value.message)
        assert told[0] == told[1]


async def test_without_a_project_it_is_the_only_one_in_which_the_caller_may(clock):
    async with running(clock) as (hub, writer):
        side = Side(hub, wait_s=0.01)
        with pytest.raises(errors.Denied, match='no project in cluster "east" in which you may'):
            await side.ask(EVE, "east/fresh")
        with pytest.raises(errors.Denied, match='no project in cluster "nowhere" in which you may'):
            await side.ask(BOB, "nowhere/fresh")
        await hub.write(writer, ADA, "create", project("lab", "east/lab"))
        await hub.put(made.binding(BOB, "project-owner", project="lab", created=clock()))
        with pytest.raises(errors.Invalid, match=r"label management\.herdsman\.dev/project: lab, shop") as refused:
            await side.ask(BOB, "east/fresh")
        assert refused.value.causes[0].field == "metadata.labels[management.herdsman.dev/project]"
        assert (await side.ask(BOB, "east/fresh", "lab")).project == "lab"


async def test_a_token_for_some_clusters_or_projects_makes_namespaces_there_alone(clock):
    async with running(clock) as (hub, writer):
        side = Side(hub, wait_s=0.01)
        await hub.write(writer, ADA, "create", project("lab", "east/lab"))
        await hub.put(made.binding(BOB, "project-owner", project="lab", created=clock()))
        assert (await side.ask(BOB, "east/one", "shop", {"clusters": ["east"]})).project == "shop"
        with pytest.raises(errors.Denied, match='not good for cluster "east"'):
            await side.ask(BOB, "east/two", "shop", {"clusters": ["west"]})
        limited = {"projects": ["lab"]}
        assert (await side.ask(BOB, "east/three", token=limited)).project == "lab"
        with pytest.raises(errors.Denied, match="good for projects lab only"):
            await side.ask(BOB, "east/four", "shop", limited)
        with pytest.raises(errors.Denied, match="read-only"):
            await side.ask(BOB, "east/five", "shop", {"clusters": ["east"], "read_only": True})
        assert await places(hub, "shop") == ["east/web", "east/one"]


@pytest.mark.parametrize(
    ("place", "name", "why"),
    [
        ("east/fresh", "nothing", errors.NotFound), ("west/fresh", "shop", errors.Denied), ("east/kube-fresh", "shop", errors.Invalid),
        ("east/Fresh", "shop", errors.Invalid), ("nowhere/fresh", "shop", errors.Denied),
    ],
)  # fmt: skip
async def test_what_may_not_be_is_refused_and_nothing_is_written(clock, place, name, why):
    async with running(clock) as (hub, _):
        with pytest.raises(why):
            await Side(hub).ask(BOB, place, name)
        with pytest.raises(errors.Denied, match="cannot create"):
            await Side(hub).ask(EVE, "east/fresh", "shop")
        assert await places(hub, "shop") == ["east/web"]


async def test_a_rehearsal_writes_nothing(clock):
    async with running(clock) as (hub, _):
        answer = await Side(hub).ask(BOB, "east/fresh", dry_run=True)
        assert (answer.project, answer.uid) == ("shop", "")
        assert await places(hub, "shop") == ["east/web"]
