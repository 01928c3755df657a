"""One control plane for all tests of this folder, and what looks into it without the agent's own eyes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from integration.agent.looking import Looker
from integration.kubelab.cluster import Cluster
from libs.common.kube.client import KubeClient
from libs.common.kube.kubeconfig import load_kubeconfig


@pytest.fixture(scope="session")
def started() -> Iterator[dict[str, Cluster]]:
    """The control plane, once a test has started it; each test has a loop of its own, so it is ended with another."""
    made: dict[str, Cluster] = {}
    yield made
    for cluster in made.values():
        asyncio.run(cluster.down())


@pytest.fixture
async def cluster(started: dict[str, Cluster], tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    if "agent-tests" not in started:
        started["agent-tests"] = await Cluster.up("agent-tests", tmp_path_factory.mktemp("kubelab"))
    return started["agent-tests"]


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[KubeClient]:
    async with KubeClient(load_kubeconfig([cluster.kubeconfig]), user_agent="tests") as made:
        yield made


@pytest.fixture
async def looker(cluster: Cluster) -> AsyncIterator[Looker]:
    made = Looker(cluster.kubeconfig)
    yield made
    await made.clean()
