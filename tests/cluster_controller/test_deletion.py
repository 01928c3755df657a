"""Status and deletion: Connected follows heartbeats, and a cluster is forgotten only when it is clean or somebody forced it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from libs.common import errors
from libs.common.contracts import messages as m
from libs.common.kube.objects import set_hash
from libs.common.reconcile import DONE, After
from libs.common.resources.access import PolicyRule
from libs.common.resources.clusters import AppliedPart, Cluster, RegistrationToken
from libs.common.store.informer import Informer
from libs.common.store.objects import encode_unique, read
from services.agent.identity import make_key
from services.cluster_controller.liveness import SILENCE_S
from services.cluster_controller.model import FINALIZER, FORCE_DELETE, departed_key, revocation_key
from services.cluster_controller.render import render_desired
from services.cluster_controller.sweeper import Sweeper
from tests.cluster_controller.made import TTL_S, Hub, role, said
from tests.cluster_controller.test_render_projects import project


async def registered(hub: Hub) -> tuple[Cluster, str]:
    await hub.create()
    key = make_key()[1]
    await hub.register(await hub.issue(), key)
    return await hub.cluster(), key


def condition(cluster: Cluster, type_: str) -> tuple[str, str]:
    found = cluster.status.condition(type_)
    assert found is not None
    return found.status, found.reason


# ── writes ──


async def test_a_new_cluster_has_our_finalizer_and_waits_for_its_agent(hub: Hub) -> None:
    cluster = await hub.create()
    assert cluster.metadata.finalizers == [FINALIZER]
    await hub.reconcile()
    cluster = await hub.cluster()
    assert cluster.status.phase == "Pending"
    assert condition(cluster, "Registered") == ("False", "NoAgent")


@pytest.mark.parametrize("name", ["herdsman", "UPPER", "a.b", "x" * 64])
async def test_names_that_would_clash_or_break_a_path_are_refused(hub: Hub, name: str) -> None:
    with pytest.raises(errors.Invalid):
        await hub.create(name)


async def test_the_finalizer_cannot_be_taken_away_by_hand(hub: Hub) -> None:
    await registered(hub)
    reply = await hub.write("olga", "patch", "edge", {"metadata": {"finalizers": []}}, patch_type="merge")
    assert reply.document["metadata"]["finalizers"] == [FINALIZER]
    assert any("kept" in w for w in reply.warnings)


# ── status ──


async def test_heartbeats_make_a_cluster_active_and_silence_disconnected(hub: Hub) -> None:
    cluster, _ = await registered(hub)
    await hub.beat(cluster.uid)
    assert hub.queued == ["edge"]
    await hub.reconcile()
    active = await hub.cluster()
    assert (active.status.phase, active.status.kubernetes_version, active.status.node_count) == ("Active", "v1.36.3", 3)
    assert condition(active, "Connected") == ("True", "Heartbeats")
    assert condition(active, "Ready") == ("True", "APIServerHealthy")
    hub.forward(SILENCE_S + 1)
    assert hub.liveness.expire(hub.ticks) == [cluster.uid]
    await hub.reconcile()
    silent = await hub.cluster()
    assert silent.status.phase == "Disconnected"
    assert condition(silent, "Connected") == ("False", "NoHeartbeat")
    assert condition(silent, "Ready")[0] == "Unknown"


async def test_nobody_is_called_disconnected_while_the_service_is_new(hub: Hub) -> None:
    cluster, _ = await registered(hub)
    await hub.beat(cluster.uid)
    await hub.reconcile()
    hub.liveness.__init__(hub.ticks)  # type: ignore[misc] # as after a restart
    await hub.reconcile()
    assert (await hub.cluster()).status.phase == "Active"
    hub.forward(SILENCE_S)
    await hub.reconcile()
    assert (await hub.cluster()).status.phase == "Disconnected"


@pytest.mark.parametrize(
    ("fields", "ready"),
    [
        ({}, ("True", "APIServerHealthy")),
        ({"api_server_healthy": False}, ("False", "APIServerUnhealthy")),
        ({"tunnels": 0}, ("False", "NoTunnel")),
    ],
)
async def test_ready_means_healthy_and_reachable(hub: Hub, fields: dict[str, object], ready: tuple[str, str]) -> None:
    cluster, _ = await registered(hub)
    await hub.beat(cluster.uid, **fields)
    await hub.reconcile()
    assert condition(await hub.cluster(), "Ready") == ready


async def test_a_status_that_is_right_is_not_written_again(hub: Hub) -> None:
    cluster, _ = await registered(hub)
    await hub.beat(cluster.uid)
    await hub.reconcile()
    revision = (await hub.cluster()).metadata.resource_version
    hub.forward(10)
    await hub.beat(cluster.uid)
    await hub.reconcile()
    assert (await hub.cluster()).metadata.resource_version == revision
    hub.forward(20)
    await hub.beat(cluster.uid)
    await hub.reconcile()
    assert (await hub.cluster()).metadata.resource_version != revision


async def test_a_changed_role_is_outdated_until_the_agent_reports_it(hub: Hub) -> None:
    cluster, _ = await registered(hub)
    await hub.beat(cluster.uid)
    await hub.reconcile()
    assert condition(await hub.cluster(), "Applied") == ("False", "Outdated")
    await asyncio.sleep(0)
    assert hub.notices == [f"down.{cluster.uid}.notify"]
    desired = await hub.agents.handle_desired(m.DesiredQuery(), said(cluster.uid))
    part = desired.parts[0]
    await hub.agents.handle_applied(
        m.AppliedReport(parts=[m.PartReport(name="roles", hash=part.hash, objects=5)]), said(cluster.uid)
    )
    await hub.settle()
    await hub.reconcile()
    assert condition(await hub.cluster(), "Applied") == ("True", "Applied")
    assert (await hub.agents.handle_desired(m.DesiredQuery(have={"roles": part.hash}), said(cluster.uid))).parts == []
    hub.roles.append(role("new"))
    await hub.reconcile()
    await asyncio.sleep(0)
    assert len(hub.notices) == 2
    assert condition(await hub.cluster(), "Applied") == ("False", "Outdated")


async def test_agents_are_told_of_roles_spread_out_and_of_a_project_at_once(hub: Hub) -> None:
    cluster, _ = await registered(hub)
    await hub.beat(cluster.uid)
    await hub.reconcile()
    for name in ("west", "north"):
        await hub.create(name)
    hub.roles.append(role("new"))
    await hub.reconcile()
    await hub.projects_store.create("projects.web", encode_unique(project("web", "edge/shop")))
    await hub.settle()
    await hub.reconcile()
    await asyncio.sleep(0)
    assert [notice.spread_s for notice in hub.said] == [0.002, 0.006, 0.0]
    assert hub.said[-1].hash == set_hash(hub.desired.hashes("edge"))


async def test_an_agent_that_has_it_already_is_not_told_again(hub: Hub) -> None:
    cluster, _ = await registered(hub)
    hashes = hub.desired.hashes("edge")
    for beat in ({"applied_set": set_hash(hashes)}, {"applied": hashes}):
        await hub.beat(cluster.uid, **beat)
        hub.reconciler._told.clear()
        await hub.reconcile()
    await asyncio.sleep(0)
    assert hub.said == []


async def test_what_was_put_right_in_a_cluster_is_told_with_its_time_and_stays_when_the_agent_starts_anew(
    hub: Hub,
) -> None:
    cluster, _ = await registered(hub)

    async def report(repairs: int, repaired: str) -> AppliedPart:
        part = m.PartReport(name="roles", hash="h", repairs=repairs, repaired=repaired)
        await hub.agents.handle_applied(m.AppliedReport(parts=[part]), said(cluster.uid))
        await hub.settle()
        hub.forward(60)
        return (await hub.cluster()).status.applied[0]

    first = hub.moment
    assert (await report(0, "")).repaired_at is None
    told = await report(1, 'ClusterRole "herdsman:x" (changed by mallory)')
    assert told.repaired_at == first + timedelta(seconds=60)
    assert await report(1, told.repaired) == told
    assert await report(0, "") == told, "the agent has started anew"
    again = await report(2, told.repaired)
    assert again.repaired_at == first + timedelta(seconds=240)
    assert again.applied_at == told.applied_at == first


async def test_a_part_that_failed_says_why(hub: Hub) -> None:
    cluster, _ = await registered(hub)
    part = render_desired(hub.current.roles, "edge")[0]
    report = m.PartReport(name="roles", hash=part.hash, error="cannot apply ClusterRole: webhook denied the request")
    await hub.agents.handle_applied(m.AppliedReport(parts=[report]), said(cluster.uid))
    await hub.settle()
    await hub.reconcile()
    applied = (await hub.cluster()).status.condition("Applied")
    assert applied is not None
    assert "webhook denied" in applied.message


async def test_an_agent_of_one_cluster_reports_nothing_for_another(hub: Hub) -> None:
    await registered(hub)
    other = await hub.create("other")
    before = (await hub.cluster()).metadata.resource_version
    with pytest.raises(errors.Denied):
        await hub.agents.handle_applied(m.AppliedReport(parts=[m.PartReport(name="roles", hash="x")]), said(other.uid))
    await hub.agents.handle_applied(
        m.AppliedReport(parts=[m.PartReport(name="roles", hash="x")], detached=True), said("unknown")
    )
    assert (await hub.cluster()).metadata.resource_version == before


# ── deletion ──


async def test_a_connected_cluster_is_forgotten_after_its_agent_detached(hub: Hub) -> None:
    cluster, key = await registered(hub)
    token = await hub.issue()
    await hub.beat(cluster.uid)
    await hub.write("ada", "delete", "edge")
    outcome = await hub.reconcile()
    assert isinstance(outcome, After)
    stored = await hub.cluster()
    assert stored.status.phase == "Deleting"
    assert condition(stored, "Detached") == ("False", "Detaching")
    assert (await hub.agents.handle_desired(m.DesiredQuery(), said(cluster.uid))).detach
    with pytest.raises(errors.Conflict, match="being deleted"):
        await hub.register(token)
    await hub.agents.handle_applied(m.AppliedReport(detached=True), said(cluster.uid))
    await hub.settle()
    assert await hub.reconcile() == DONE
    with pytest.raises(errors.NotFound):
        await hub.cluster()
    assert await hub.store.get(revocation_key(key))
    with pytest.raises(errors.NotFound):
        await read(hub.store, RegistrationToken, token.split("_")[1])


async def test_a_disconnected_cluster_stays_and_says_why(hub: Hub) -> None:
    await registered(hub)
    hub.forward(SILENCE_S + 1)
    await hub.write("ada", "delete", "edge")
    assert await hub.reconcile() == DONE
    stored = await hub.cluster()
    assert stored.status.phase == "Deleting"
    detached = stored.status.condition("Detached")
    assert detached is not None
    assert detached.reason == "AgentDisconnected"
    assert FORCE_DELETE in detached.message


async def test_a_forced_deletion_forgets_the_cluster_and_cleans_up_when_the_agent_comes_back(hub: Hub) -> None:
    cluster, key = await registered(hub)
    hub.forward(SILENCE_S + 1)
    await hub.write("ada", "patch", "edge", {"metadata": {"annotations": {FORCE_DELETE: "true"}}}, patch_type="merge")
    await hub.write("ada", "delete", "edge")
    await hub.reconcile()
    with pytest.raises(errors.NotFound):
        await hub.cluster()
    assert (await hub.agents.handle_desired(m.DesiredQuery(), said(cluster.uid))).detach
    with pytest.raises(errors.NotFound):
        await hub.store.get(revocation_key(key))
    await hub.agents.handle_applied(m.AppliedReport(detached=True), said(cluster.uid))
    assert await hub.store.get(revocation_key(key))
    with pytest.raises(errors.NotFound):
        await hub.store.get(departed_key(cluster.uid))


async def test_a_cluster_that_the_hub_never_knew_is_not_told_to_detach(hub: Hub) -> None:
    """A hub that was restored from an old backup must not have every newer cluster cleaned out."""
    with pytest.raises(errors.NotFound):
        await hub.agents.handle_desired(m.DesiredQuery(), said("0b2c6c1e-0000-4000-8000-000000000000"))


async def test_forcing_takes_the_right_to_delete(hub: Hub) -> None:
    await registered(hub)
    hub.roles[1] = role(
        "cluster-owner", hub=[PolicyRule(verbs=["get", "update", "patch"], api_groups=["*"], resources=["*"])]
    )
    with pytest.raises(errors.Denied, match=FORCE_DELETE):
        await hub.write(
            "olga", "patch", "edge", {"metadata": {"annotations": {FORCE_DELETE: "true"}}}, patch_type="merge"
        )


async def test_a_cluster_that_never_had_an_agent_goes_at_once(hub: Hub) -> None:
    await hub.create()
    await hub.write("ada", "delete", "edge")
    await hub.reconcile()
    with pytest.raises(errors.NotFound):
        await hub.cluster()


async def test_a_detach_report_for_a_living_cluster_changes_nothing(hub: Hub) -> None:
    cluster, _ = await registered(hub)
    await hub.agents.handle_applied(m.AppliedReport(detached=True), said(cluster.uid))
    assert (await hub.cluster()).status.condition("Detached") is None


async def test_what_nobody_needs_is_swept_and_what_somebody_needs_is_not(hub: Hub) -> None:
    _, old = await registered(hub)
    await hub.register(await hub.issue())
    fresh = await hub.issue(ttl_s=7 * 86_400)
    revocations, departed = Informer(hub.store, "revocations"), Informer(hub.store, "departed")
    sweeper = Sweeper(hub.store, hub.clusters, hub.tokens, revocations, departed, TTL_S, hub.now)
    followers = [asyncio.create_task(informer.run()) for informer in (revocations, departed)]
    try:
        await asyncio.gather(revocations.synced.wait(), departed.synced.wait())
        assert await sweeper.sweep() == 0
        hub.forward(86_400 + 60)
        assert await sweeper.sweep() == 2, "the two used tokens, a day later"
        await hub.settle()
        assert [t.name for t in hub.tokens.all()] == [fresh.split("_")[1]]
        assert await hub.store.get(revocation_key(old)), "a JWT for the old key may still live"
        hub.forward(TTL_S)
        assert await sweeper.sweep() == 2, "the last token, and the revocation of a key that no JWT is for any more"
        with pytest.raises(errors.NotFound):
            await hub.store.get(revocation_key(old))
        await revocations.wait_revision(hub.store._revision)
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)


async def test_what_is_taken_back_within_a_heartbeat_is_told_too(hub: Hub) -> None:
    cluster, _ = await registered(hub)
    before = set_hash(hub.desired.hashes("edge"))
    await hub.beat(cluster.uid, applied_set=before)
    await hub.reconcile()
    revision = await hub.projects_store.create("projects.web", encode_unique(project("web", "edge/shop")))
    await hub.settle()
    await hub.reconcile()
    await asyncio.sleep(0)
    assert hub.said[-1].hash == set_hash(hub.desired.hashes("edge")) != before
    # The agent has applied it, and its next heartbeat is a second away.
    await hub.projects_store.delete("projects.web", encode_unique(project("web", "edge/shop")), revision)
    await hub.settle()
    await hub.reconcile()
    await asyncio.sleep(0)
    assert hub.said[-1].hash == before
