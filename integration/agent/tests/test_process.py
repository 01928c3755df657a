"""The agent's process between a real API server and a real bus: in, through crashes, and out again without a trace."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from integration.agent.hub import RealHub, real_hub
from integration.agent.looking import Looker, eventually
from integration.agent.process import AgentProcess
from integration.kubelab.cluster import Cluster as ControlPlane
from libs.common import errors
from libs.common.access.roles import resolve_roles
from libs.common.crypto.ca import generate_ca
from libs.common.resources.access import PolicyRule
from services.cluster_controller.model import departed_key, revocation_key
from services.cluster_controller.render import render_roles
from tests.cluster_controller.made import ROLES, role

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(240)]
ADMIN = ROLES[0]
RESIDENT_LIMIT_MB = 60
PODS = PolicyRule(verbs=["get", "list"], api_groups=[""], resources=["pods"])


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[RealHub]:
    folder = tmp_path / "hub"
    folder.mkdir()
    async with real_hub(folder) as made:
        yield made


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[AgentProcess]:
    made = AgentProcess(tmp_path / "agent")
    yield made
    await made.end()


async def phase(hub: RealHub, wanted: str, timeout_s: float = 30.0) -> None:
    def reached() -> bool:
        found = hub.clusters.get("edge")
        return (found.status.phase if found else "gone") == wanted

    await eventually(reached, timeout_s)


def says(hub: RealHub, type_: str) -> str:
    cluster = hub.clusters.get("edge")
    condition = cluster.status.condition(type_) if cluster else None
    return condition.status if condition else ""


def expected(hub: RealHub) -> list[str]:
    return sorted(f"{o['kind']}/{o['metadata']['name']}" for o in render_roles(resolve_roles(hub.roles), "edge"))


async def test_from_registration_to_detach_nothing_is_left(
    hub: RealHub, agent: AgentProcess, cluster: ControlPlane, looker: Looker
) -> None:
    await hub.create()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, await hub.issue())
    await phase(hub, "Active")
    await eventually(lambda: (says(hub, "Applied"), says(hub, "Ready")) == ("True", "True"))
    assert await looker.labelled() == expected(hub)
    stored = await hub.cluster()
    assert stored.status.kubernetes_version.startswith("v1.")
    assert stored.status.node_count == 0
    assert hub.observed[-1].complete

    # A node appears, and goes.
    await looker.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    await eventually(lambda: [n.name for n in hub.observed[-1].nodes] == ["n1"])
    await looker.run("delete", "node", "n1")
    await eventually(lambda: hub.observed[-1].complete and not hub.observed[-1].nodes)

    # A role changes: the notice brings it down in seconds.
    hub.roles = [ADMIN, role("cluster-viewer", "cluster", PODS)]
    await hub.reconcile()
    await eventually(lambda: says(hub, "Applied") == "True")
    assert await looker.labelled() == expected(hub)
    print(f"the agent holds {agent.resident_mb():.1f} MB")
    assert agent.resident_mb() < RESIDENT_LIMIT_MB

    key = stored.status.agent.public_key
    await hub.write("ada", "delete", "edge")
    assert await agent.wait() == 0
    await phase(hub, "gone")
    assert await looker.labelled() == []
    assert await looker.named() == []
    assert await looker.with_finalizers() == []
    assert sorted(p.name for p in agent.state.iterdir()) == ["lock"]
    assert await hub.store.get(revocation_key(key))


async def test_an_agent_that_is_killed_in_the_middle_finishes_after_a_restart(
    hub: RealHub, agent: AgentProcess, cluster: ControlPlane, looker: Looker
) -> None:
    hub.roles = [ADMIN, *(role(f"r{n:03}", "cluster", PODS) for n in range(150))]
    await hub.create()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, await hub.issue())
    await eventually(lambda: len([x for x in agent.lines() if x.get("event") == "object_applied"]) > 40)
    await agent.kill()
    half = len(await looker.labelled())
    assert 0 < half < 300
    hub.roles = [ADMIN, *hub.roles[100:]]
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig)
    await eventually(lambda: says(hub, "Applied") == "True")
    assert await looker.labelled() == expected(hub)
    # And in the middle of leaving.
    await hub.write("ada", "delete", "edge")
    await eventually(lambda: agent.said("detach_started"))
    await asyncio.sleep(0.3)
    await agent.kill()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig)
    assert await agent.wait() == 0
    await phase(hub, "gone")
    assert await looker.labelled() == []


async def test_a_token_is_good_for_one_agent(
    hub: RealHub, agent: AgentProcess, cluster: ControlPlane, tmp_path: Path
) -> None:
    await hub.create()
    token = await hub.issue()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, token)
    await phase(hub, "Active")
    second = AgentProcess(tmp_path / "second")
    await second.start(hub.url, hub.ca_file, cluster.kubeconfig, token)
    assert await second.wait() == 1
    assert second.said("agent_failed", error="used already: issue a fresh one")


async def test_an_expired_token_says_what_to_do(hub: RealHub, agent: AgentProcess, cluster: ControlPlane) -> None:
    await hub.create()
    token = await hub.issue()
    found = hub.tokens.all()[0].model_copy(deep=True)
    found.spec.expires_at = hub.now()
    from libs.common.store.objects import encode_unique

    await hub.store.update(
        f"registrationtokens.{found.name}", encode_unique(found), int(found.metadata.resource_version or 0)
    )
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, token)
    assert await agent.wait() == 1
    assert agent.said("agent_failed", error="expired: issue a fresh one")


async def test_a_hub_with_another_ca_gets_nothing_from_the_agent(
    hub: RealHub, agent: AgentProcess, cluster: ControlPlane, tmp_path: Path
) -> None:
    await hub.create()
    token = await hub.issue()
    other = tmp_path / "other.crt"
    other.write_bytes(generate_ca("somebody else", hub.now()).certificate)
    await agent.start(hub.url, other, cluster.kubeconfig, token)
    await agent.says("registration_failed", error="not signed by the CA that this agent was given")
    assert hub.tokens.all()[0].status.used_at is None
    await agent.end()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig)
    await phase(hub, "Active")


async def test_two_agents_cannot_share_a_state_folder(
    hub: RealHub, agent: AgentProcess, cluster: ControlPlane, tmp_path: Path
) -> None:
    await hub.create()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, await hub.issue())
    await phase(hub, "Active")
    second = AgentProcess(tmp_path / "second")
    await second.start(hub.url, hub.ca_file, cluster.kubeconfig, state=agent.state)
    assert await second.wait() == 1
    assert second.said("agent_failed", error="another agent runs with the state folder")


async def test_two_agents_of_one_cluster_stand_side_by_side(
    hub: RealHub, agent: AgentProcess, cluster: ControlPlane, tmp_path: Path
) -> None:
    await hub.create()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, await hub.issue())
    await phase(hub, "Active")
    second = AgentProcess(tmp_path / "second")
    shutil.copytree(agent.state, second.state)
    try:
        await second.start(hub.url, hub.ca_file, cluster.kubeconfig)
        await second.says("tunnel_carrier_chosen")
        await asyncio.sleep(1.0)
        assert not agent.said("hub_connection_failed")
        assert not second.said("hub_connection_failed")
    finally:
        await second.end()


async def test_a_new_registration_throws_the_old_agent_off_the_bus(
    hub: RealHub, agent: AgentProcess, cluster: ControlPlane, tmp_path: Path
) -> None:
    await hub.create()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, await hub.issue())
    await phase(hub, "Active")
    second = AgentProcess(tmp_path / "second")
    try:
        await second.start(hub.url, hub.ca_file, cluster.kubeconfig, await hub.issue())
        await second.says("agent_started")
        await agent.says("bus_lost", 10)
        await agent.says("bus_not_reached", 10, error="uthorization")
        # A fresh token in its place and it is the one again, without a restart.
        agent.token_file.write_text(await hub.issue())
        await agent.says("registration_token_replaced", 20)
        await second.says("bus_lost", 20)
    finally:
        await second.end()


async def test_the_credential_is_renewed_while_the_agent_works(
    tmp_path: Path, agent: AgentProcess, cluster: ControlPlane
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    async with real_hub(folder, jwt_ttl_s=9) as hub:
        await hub.create()
        await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, await hub.issue())
        await phase(hub, "Active")
        await eventually(lambda: len([x for x in agent.lines() if x.get("event") == "credential_renewed"]) >= 3, 40)
        assert hub.clusters.get("edge").status.phase == "Active"  # type: ignore[union-attr]
        assert not agent.said("bus_lost")


async def test_a_forgotten_cluster_is_cleaned_when_its_agent_comes_back(
    hub: RealHub, agent: AgentProcess, cluster: ControlPlane, looker: Looker
) -> None:
    await hub.create()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, await hub.issue())
    await eventually(lambda: says(hub, "Applied") == "True")
    uid = (await hub.cluster()).uid
    await agent.kill()
    patch = {"metadata": {"annotations": {"management.herdsman.dev/force-delete": "true"}}}
    await hub.write("ada", "patch", "edge", patch, patch_type="merge")
    await hub.write("ada", "delete", "edge")
    await phase(hub, "gone")
    assert await hub.store.get(departed_key(uid))
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig)
    assert await agent.wait() == 0
    assert await looker.labelled() == []
    with pytest.raises(errors.NotFound):
        await hub.store.get(departed_key(uid))


async def test_a_stop_takes_less_than_five_seconds(hub: RealHub, agent: AgentProcess, cluster: ControlPlane) -> None:
    await hub.create()
    await agent.start(hub.url, hub.ca_file, cluster.kubeconfig, await hub.issue())
    await phase(hub, "Active")
    async with asyncio.timeout(5):
        assert await agent.terminate() == 0
    assert agent.said("agent_stopped")
