"""Labels of clusters: where bindings go by them, changing them is giving roles."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from libs.common import errors
from libs.common.resources.clusters import Cluster
from services.cluster_controller.strategies import ClusterStrategy
from tests.access import made
from tests.access.hub import ADMIN, running_hub

ADA, BOB, EVE = made.user("ada"), made.user("bob"), made.user("eve")
OWNER = made.role("owner", "cluster", rules=[made.rule("*", "*", group="*")], hub=[made.hub_rule("*", "clusters")])
KEEPER = made.role("keeper", "cluster", hub=[made.hub_rule("get update patch", "clusters")])
VIEWER = made.role("viewer", "cluster", rules=[made.rule("get", "pods")])
EAST = made.cluster("east", env="prod")


@asynccontextmanager
async def running(clock):
    """Ada owns every cluster, Bob keeps them and sees nothing inside, Eve views those in dev; east is in prod."""
    async with running_hub(clock) as hub:
        await hub.put(
            ADA, BOB, EVE, ADMIN, OWNER, KEEPER, VIEWER, EAST, made.binding(ADA, "owner", everywhere=True),
            made.binding(BOB, "keeper", everywhere=True), made.binding(EVE, "viewer", labels={"env": "dev"}),
        )  # fmt: skip
        yield hub, hub.writer("cluster_controller", {"clusters": ClusterStrategy(hub.live.bindings)})


async def relabel(hub, writer, who, **labels):
    return await hub.write(writer, who, "patch", "east", plural="clusters", body={"metadata": {"labels": labels}})


def groups(hub):
    return hub.live.current.synthetic_groups(made.caller(EVE), "east", "uid-east")


async def test_who_lacks_a_role_does_not_bring_it_into_a_cluster_by_a_label(clock):
    async with running(clock) as (hub, writer):
        with pytest.raises(errors.Denied, match=r'would give the role "viewer" in it.*get pods \(in cluster east\)'):
            await relabel(hub, writer, BOB, env="dev")
        assert groups(hub) == ()
        await relabel(hub, writer, BOB, team="shop")
        await relabel(hub, writer, ADA, env="dev")
        assert groups(hub) == ("herdsman:cluster:east:viewer",)


async def test_nobody_enters_a_cluster_by_labelling_it_like_those_they_are_in(clock):
    async with running(clock) as (hub, writer):
        await hub.put(made.binding(EVE, "keeper", cluster="east"))
        with pytest.raises(errors.Denied, match="would give the role"):
            await relabel(hub, writer, EVE, env="dev")
        assert groups(hub) == ("herdsman:cluster:east:keeper",)


async def test_who_holds_the_role_for_an_hour_does_not_bring_it_in_for_good(clock):
    async with running(clock) as (hub, writer):
        hour = clock() + timedelta(hours=1)
        await hub.put(made.binding(BOB, "viewer", cluster="east", until=hour))
        with pytest.raises(errors.Denied, match="for a shorter time"):
            await relabel(hub, writer, BOB, env="dev")
        await hub.put(made.binding(EVE, "viewer", labels={"env": "dev"}, until=hour))
        await relabel(hub, writer, BOB, env="dev")
        assert groups(hub)
        clock.forward(3600)
        assert groups(hub) == ()


async def test_taking_a_label_away_takes_no_more_than_the_right_to_change_the_cluster(clock):
    async with running(clock) as (hub, writer):
        await relabel(hub, writer, ADA, env="dev")
        await relabel(hub, writer, BOB, env="prod")
        assert groups(hub) == ()
        assert (await hub.get(Cluster, "east")).metadata.labels == {"env": "prod"}
