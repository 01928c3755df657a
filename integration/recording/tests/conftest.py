"""A real cluster, a real nats-server, the front door between them, and a pod: what is recorded here was a real session."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from integration.harness.nats import NatsServer
from integration.kubelab.cluster import Cluster
from integration.kubelab.kubectl import Answer, find_kubectl, kubectl
from integration.proxy.tests.conftest import (
    api_server,
    cluster,
    full_cluster,
    plain_cluster,
    pytest_collection_modifyitems,
    write_kubeconfig,
)
from integration.recording.capture import CARRIERS, make_pod
from integration.recording.terminal import Terminal
from libs.common.bus.nats import NatsBus, connect
from libs.common.recording.chain import Opener
from libs.common.recording.events import Event
from libs.common.recording.log import JetStreamLog
from libs.common.recording.model import Facts, Outcome
from tests.auth_proxy.door import Door, open_door

__all__ = ["cluster", "full_cluster", "plain_cluster", "pytest_collection_modifyitems"]


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """One for each test: each has a front door with keys of its own, and may harm the server."""
    with NatsServer() as started:
        yield started


@dataclass
class Recorded:
    facts: Facts
    outcome: Outcome | None
    events: list[Event]

    def on(self, channel: int) -> bytes:
        return b"".join(event.data for event in self.events if event.channel == channel)


@dataclass
class Way:
    """One person with kubectl, through a front door that records."""

    door: Door
    server: NatsServer
    bus: NatsBus
    kubeconfig: Path
    gateway: NatsBus
    token: str

    async def kubectl(self, carrier: str, *arguments: str, **more: object) -> Answer:
        return await kubectl(self.kubeconfig, *arguments, environment=environment(carrier), **more)

    def terminal(self, carrier: str, *arguments: str) -> Terminal:
        return Terminal(
            str(find_kubectl()),
            f"--kubeconfig={self.kubeconfig}",
            *arguments,
            environment={**os.environ, **environment(carrier)},
        )

    async def recordings(self) -> list[Recorded]:
        """All that are stored, in order, each checked."""
        log = self.reader()
        ids = [part.id async for part in log.read_ends(None) if part.kind == "head"]
        found = []
        for id_ in ids:
            opener = Opener(id_, self.door.host.verifier)
            events = [event async for part in log.read(id_) for event in opener.open(part.data)]
            assert opener.facts is not None
            found.append(Recorded(opener.facts, opener.outcome, events))
        return found

    async def last(self) -> Recorded:
        return (await self.recordings())[-1]

    def reader(self) -> JetStreamLog:
        return JetStreamLog(self.gateway)


def environment(carrier: str) -> dict[str, str]:
    return {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": CARRIERS[carrier]}


@pytest.fixture
async def way(cluster: Cluster, server: NatsServer, tmp_path: Path) -> AsyncIterator[Way]:
    await make_pod(cluster)
    async with (
        connect(server.connect_as("auth_proxy")) as bus,
        connect(server.connect_as("gateway")) as gateway,
        open_door(tmp_path, bus=bus) as door,
    ):
        token = await door.member("ada", "prod")
        address = api_server(cluster)
        async with door.agent("prod", lambda: address, b"", idle=4):
            config = write_kubeconfig(tmp_path / "kubeconfig", door, token)
            yield Way(door, server, bus, config, gateway, token)
