"""What the agent does as a pod: state in Secrets, written by compare-and-set, and at the end it removes itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import yaml

from integration.agent.looking import Looker
from libs.common import errors
from libs.common.bus.base import Message
from libs.common.bus.memory import MemoryBus
from libs.common.contracts import messages as m
from libs.common.contracts.methods import REPORT_APPLIED
from libs.common.kube.client import KubeClient
from libs.common.kube.discovery import Discovery
from services.agent.apply import Applier
from services.agent.desired import DesiredKeeper
from services.agent.detach import Detacher
from services.agent.state import Identity, Kept, SecretState
from services.gateway.manifest import render_manifest

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(180)]
NAMESPACE = "herdsman-system"
IDENTITY = Identity("SUSEED", "UPUB", "jwt", "c", "uid", "2026-01-01T00:00:00+00:00", 60, "digest")


@pytest.fixture
async def manifest(looker: Looker) -> AsyncIterator[None]:
    """The objects that an import makes; no pod runs here."""
    text = render_manifest(hub="https://hub.example:8443", ca="CA", image="agent:1", cluster="edge", token="hmr_a_b")
    await looker.apply(*(d for d in yaml.safe_load_all(text) if d))
    yield
    await looker.run("delete", "namespace", NAMESPACE, "--ignore-not-found")


async def test_state_lives_in_secrets_and_two_writers_notice_each_other(
    client: KubeClient, looker: Looker, manifest: None
) -> None:
    first, second = SecretState(client, NAMESPACE, "herdsman-agent"), SecretState(client, NAMESPACE, "herdsman-agent")
    assert await first.load_identity() is None
    await first.save_identity(IDENTITY)
    assert await second.load_identity() == IDENTITY
    await first.save_identity(replace(IDENTITY, jwt="newer"))
    with pytest.raises(errors.Conflict):
        await second.save_identity(replace(IDENTITY, jwt="older"))
    assert (await second.load_identity() or IDENTITY).jwt == "newer"
    await second.save_identity(replace(IDENTITY, jwt="newest"))
    with pytest.raises(errors.AlreadyExists):
        await SecretState(client, NAMESPACE, "herdsman-agent").save_identity(IDENTITY)
    kept = Kept({"roles": ("h", [{"kind": "X"}])}, [("v1", "ConfigMap")], True)
    await first.save_kept(kept)
    assert await second.load_kept() == kept
    await second.delete()
    assert await first.load_identity() is None


async def test_a_set_that_no_secret_can_hold_keeps_its_kinds(client: KubeClient, manifest: None) -> None:
    import random

    noise = random.Random(1).randbytes(1_500_000).hex()
    state = SecretState(client, NAMESPACE, "herdsman-agent")
    await state.save_kept(Kept({"big": ("h", [{"text": noise}])}, [("v1", "ConfigMap")]))
    assert await state.load_kept() == Kept({}, [("v1", "ConfigMap")])


async def test_a_pod_that_detaches_takes_its_namespace_and_its_rights_along(
    client: KubeClient, looker: Looker, manifest: None
) -> None:
    bus, discovery = MemoryBus(), Discovery(client)
    state = SecretState(client, NAMESPACE, "herdsman-agent")
    await state.save_identity(IDENTITY)
    reports: list[list[str]] = []

    async def take(message: Message) -> m.Empty:
        reports.append(await looker.labelled())
        return m.Empty()

    detacher = Detacher(client, discovery, bus, "uid", state, NAMESPACE)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "herdsman-x", "namespace": "default"}}
    kept = Kept({"a": ("h", [config])}, [("v1", "ConfigMap")])
    keeper = DesiredKeeper(bus, "uid", state, kept, Applier(client, discovery), detacher.run)
    await keeper.enforce()
    assert "ConfigMap/herdsman-x" in await looker.labelled()
    assert "ClusterRole/herdsman-agent" in await looker.labelled(), "enforcing never prunes the agent itself"
    async with bus.serve(REPORT_APPLIED.subject, take, queue="hub"):
        await detacher.run()
    assert "ConfigMap/herdsman-x" not in reports[0]
    assert "ClusterRole/herdsman-agent" in reports[0], "it needs its rights until it has reported"
    for _ in range(120):
        if not await looker.named():
            break
        await asyncio.sleep(0.5)
    assert await looker.named() == []
    assert await looker.labelled() == []


async def test_a_namespace_that_was_not_made_for_the_agent_is_left_alone(client: KubeClient, looker: Looker) -> None:
    await looker.run("create", "namespace", "shared")
    detacher = Detacher(
        client, Discovery(client), MemoryBus(), "uid", SecretState(client, "shared", "herdsman-agent"), "shared"
    )
    await detacher._remove_itself()
    assert (await looker.get("namespace", "shared"))["status"]["phase"] == "Active"
    await looker.run("delete", "namespace", "shared", "--wait=false")
