"""The hub's certificate authority is replaced under load, with real processes: no call fails, and no cluster is lost."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from integration.flows.conftest import wait_active
from integration.flows.outside import Agent, make_cluster, running
from integration.harness.hub import Hub, Person, eventually
from integration.kubelab.cluster import Cluster

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def cluster(needs_kubernetes, tmp_path_factory) -> AsyncIterator[Cluster]:
    made = await Cluster.up("rotation", tmp_path_factory.mktemp("clusters"), minimal=True)
    yield made
    await made.down(delete=True)


@pytest_asyncio.fixture(loop_scope="package")
async def own_hub(tmp_path) -> AsyncIterator[Hub]:
    hub = Hub(tmp_path / "hub", "--no-local-cluster")
    await hub.start()
    yield hub
    await hub.stop()


class Load:
    """Calls one after the other until told to stop; each with the kubeconfig that is there then."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self._stopping = False
        self.done = 0
        self.failed: list[str] = []

    async def run(self) -> None:
        while not self._stopping:
            answer = await self._person.kubectl("turning", "get", "namespaces", "-o", "name")
            self.done += 1
            if answer.code:
                self.failed.append(answer.err)

    def stop(self) -> None:
        self._stopping = True


async def ca(person: Person, hub: Hub, *words: str) -> str:
    return await person.must("hub", "ca", *words, "--data-dir", str(hub.ca_file.parents[1]))


async def test_no_call_fails_while_the_authority_is_replaced_and_the_agent_learns_the_new_one(
    own_hub, cluster, tmp_path
):
    hub = own_hub
    given = tmp_path / "given-ca.crt"
    shutil.copy(hub.ca_file, given)
    token = await make_cluster(hub, "turning")
    agent = Agent(hub, tmp_path / "agent", cluster.kubeconfig, ca_file=given)
    async with running(agent, token):
        await wait_active(hub, "turning")
        admin = await hub.admin()
        load = Load(admin)
        calling = asyncio.create_task(load.run(), name="load")
        first = hub.ca_file.read_bytes()
        await ca(admin, hub, "start")

        async def known() -> bool:
            return "not yet" not in await ca(admin, hub, "status")

        # The agent is told with the next ping, and says what it trusts with its heartbeat.
        await eventually(known, 40, 0.5)
        assert "hub_ca_learned" in agent.log
        await asyncio.sleep(3)  # longer than the gateway takes to hand out both
        await admin.sign_in(Path(hub.record()["admin_password_file"]))
        await ca(admin, hub, "switch")
        await asyncio.sleep(4)
        # A burst makes the agent dial: its new connections meet the new certificate.
        burst = await asyncio.gather(*(admin.kubectl("turning", "get", "namespaces", "-o", "name") for _ in range(8)))
        assert {answer.code for answer in burst} == {0}, burst
        await eventually(known, 40, 0.5)
        await ca(admin, hub, "finish")
        await asyncio.sleep(3)
        assert hub.ca_file.read_bytes() not in (first, b"")
        assert first.strip() not in hub.ca_file.read_bytes()
        await eventually(known, 40, 0.5)
        calls = load.done
        await eventually(lambda: _more(load, calls + 2), 20)
        load.stop()
        await calling
        assert not load.failed, load.failed[0]
        assert load.done > 5
        # A life later it still knows its hub, though the file that it was given once names another authority.
        await agent.stop()
        await agent.start()
        await wait_active(hub, "turning")
        assert (await admin.kubectl("turning", "get", "namespaces")).code == 0


async def _more(load: Load, count: int) -> bool:
    return load.done >= count
