"""Emergencies: the role at once, with an alarm, and a review by somebody else afterwards."""

from __future__ import annotations

from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from libs.common import errors
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.requests import AccessRequest
from services.authz.break_glass import ALARM
from services.authz.request_rules import LAPSE_S
from services.authz.requests import KEEP_S
from tests.access import made
from tests.authz.asking import ADA, BOB, EVE, IDS, ROB, SAM, ask, closer_of, decide, groups, policy, running

GLASS = policy("glass", breakGlass=True, roles=["cluster-owner"], approvers=[IDS["bob"], IDS["sam"]])


def emergency(name: str = "r", **spec) -> AccessRequest:
    return ask(name, **{"role": "cluster-owner", "breakGlass": True, **spec})


async def test_in_an_emergency_the_role_is_there_at_once_with_an_alarm(clock, figures):
    async with running(clock, GLASS) as (hub, writer):
        with pytest.raises(errors.Denied, match="lets you"):
            await hub.write(writer, EVE, "create", ask(role="cluster-owner"))
        with pytest.raises(errors.Denied, match="lets you"):
            await hub.write(writer, SAM, "create", emergency())
        await hub.write(writer, EVE, "create", emergency())
        made_ = await hub.get(AccessRequest, "r")
        assert (made_.status.phase, made_.status.unreviewed, made_.status.until) == (
            "Granted",
            True,
            clock() + timedelta(seconds=60),
        )
        assert groups(hub) == ("herdsman:cluster:east:cluster-owner",)
        closer = closer_of(hub, clock)
        with capture_logs() as lines:
            await closer.reconcile("r")
            await hub.settle()
            await closer.reconcile("r")
        told = [line for line in lines if line["event"] == ALARM]
        assert [(t["log_level"], t["user"], t["role"], t["scope"], t["reason"]) for t in told] == [
            ("error", "eve", "cluster-owner", "in cluster east", "the queue is stuck")
        ]
        assert figures.get_sample_value("herdsman_break_glass_total") == 1
        assert figures.get_sample_value("herdsman_break_glass_active") == 1
        assert figures.get_sample_value("herdsman_break_glass_unreviewed") == 1
        clock.forward(60)
        assert groups(hub) == ()


async def test_an_emergency_is_reviewed_by_somebody_else_and_stays_until_then(clock, figures):
    async with running(clock, GLASS) as (hub, writer):
        closer = closer_of(hub, clock)
        await hub.write(writer, EVE, "create", emergency())
        for who in (EVE, ROB):
            with pytest.raises((errors.Denied, errors.NotFound)):
                await decide(hub, writer, who)
        clock.forward(60 + LAPSE_S + KEEP_S)
        for _ in range(3):
            await closer.reconcile("r")
            await hub.settle()
        kept = await hub.get(AccessRequest, "r")
        assert (kept.status.phase, kept.status.unreviewed) == ("Ended", True)
        with pytest.raises(errors.Conflict, match="review it first"):
            await hub.write(writer, ADA, "delete", "r", plural="accessrequests")
        reviewed = await decide(hub, writer, SAM, comment="it was right")
        assert (reviewed.status.phase, reviewed.status.unreviewed) == ("Ended", False)
        with pytest.raises(errors.Conflict, match="nothing to decide"):
            await decide(hub, writer, BOB, "deny")
        await closer.reconcile("r")
        assert figures.get_sample_value("herdsman_break_glass_unreviewed") == 0
        with pytest.raises(errors.NotFound):
            await hub.get(AccessRequest, "r")


async def test_a_review_that_objects_takes_the_role_away_in_the_same_write(clock):
    async with running(clock, GLASS) as (hub, writer):
        await hub.write(writer, EVE, "create", emergency())
        assert groups(hub)
        objected = await decide(hub, writer, SAM, "deny")
        assert (objected.status.phase, objected.status.unreviewed) == ("Revoked", False)
        assert groups(hub) == ()
        await hub.write(writer, EVE, "create", emergency("again"))
        await hub.delete(await hub.get(RoleTemplateBinding, (await hub.get(AccessRequest, "again")).status.binding))
        assert (await decide(hub, writer, SAM, "deny", "again")).status.phase == "Revoked", (
            "somebody took it away before"
        )


async def test_who_makes_emergencies_possible_holds_what_they_give_for_good(clock):
    async with running(clock) as (hub, writer):
        keeper = made.role(
            "keeper", "global", hub=[made.hub_rule("*", "accesspolicies"), made.hub_rule("*", "roletemplates")]
        )
        await hub.put(
            keeper, made.binding(SAM, "keeper", everywhere=True), made.binding(BOB, "keeper", everywhere=True)
        )
        with pytest.raises(errors.Denied, match="rights that you lack"):
            await hub.write(writer, SAM, "create", GLASS)
        for scope in ({"anyCluster": True}, {"project": "shop"}, {"anyProject": True}, {"global": True}):
            with pytest.raises(errors.Denied, match="rights that you lack"):
                await hub.write(
                    writer, BOB, "create", policy("wide", breakGlass=True, roles=["cluster-owner"], scopes=[scope])
                )
        await hub.write(writer, BOB, "create", GLASS)
        await hub.write(writer, SAM, "create", policy("asked", roles=["cluster-owner"]))
        await hub.put(
            made.binding(SAM, "cluster-owner", cluster="east", name="short", until=clock() + timedelta(hours=1))
        )
        with pytest.raises(errors.Denied, match="for a time only"):
            await hub.write(writer, SAM, "create", policy("later", breakGlass=True, roles=["cluster-owner"]))
        with pytest.raises(errors.Invalid, match="named"):
            await hub.write(writer, ADA, "create", policy("all", breakGlass=True, requesters=["*"]))
        with pytest.raises(errors.Invalid, match=r"spec\.roles\[0\]"):
            await hub.write(writer, ADA, "create", policy("none", breakGlass=True, roles=["nix"]))


async def test_a_role_that_an_emergency_gives_grows_by_nobody_who_lacks_what_is_added(clock):
    async with running(clock) as (hub, writer):
        keeper = made.role("keeper", "global", hub=[made.hub_rule("*", "roletemplates")])
        small = made.role("small", "cluster", rules=[made.rule("get", "pods")])
        heir = made.role("heir", "cluster", inherits=["small"])
        await hub.put(keeper, small, heir, made.binding(SAM, "keeper", everywhere=True))
        await hub.write(writer, ADA, "create", policy("glass", breakGlass=True, roles=["heir"]))
        wider = await hub.get(RoleTemplate, "small")
        wider.spec.rules += made.role("x", "cluster", rules=[made.rule("get", "secrets")]).spec.rules
        with pytest.raises(errors.Denied, match="in an emergency"):
            await hub.write(writer, SAM, "update", wider)
        other = made.role("other", "cluster", rules=[made.rule("get", "secrets")])
        await hub.write(writer, SAM, "create", other)
        await hub.write(writer, ADA, "update", wider)
