"""A connection outlives its credential: expiry, renewal and revocation, by TCP and by WebSocket."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from integration.harness.nats import NatsServer
from integration.nats.tests.test_permissions import agent_options
from libs.common.bus import accounts
from libs.common.bus.base import Message
from libs.common.bus.nats import connect
from libs.common.bus.revocation import AgentsAccount, RevocationList
from libs.common.contracts import subjects
from libs.common.contracts.messages import Empty, Heartbeat
from tests.store.watching import eventually


@pytest.mark.parametrize("way", ["tcp", "websocket"])
async def test_an_expired_credential_is_replaced_by_a_fresh_one(server: NatsServer, way: str) -> None:
    heard: list[str] = []

    async def note(message: Message) -> None:
        heard.append(message.subject)

    address = server.websocket_url if way == "websocket" else ""
    options = agent_options(server, "cluster-x", accounts.generate_seed("user"), ttl_s=2, address=address)
    async with (
        connect(server.connect_as("cluster_controller")) as controller,
        connect(options) as agent,
        agent.listen(subjects.notice("cluster-x"), note),
    ):
        assert agent.connected
        await eventually(lambda: agent.connection.epoch >= 3)
        for _ in range(50):
            await controller.publish(subjects.notice("cluster-x"), Empty())
            await asyncio.sleep(0.05)
        assert len(heard) > 25


@pytest.mark.parametrize("way", ["tcp", "websocket"])
async def test_a_renewed_credential_is_taken_up_without_a_gap(server: NatsServer, way: str) -> None:
    heard: list[str] = []
    lost: list[bool] = []

    async def note(message: Message) -> None:
        heard.append(message.subject)

    address = server.websocket_url if way == "websocket" else ""
    options = agent_options(server, "cluster-y", accounts.generate_seed("user"), address=address)
    async with (
        connect(server.connect_as("cluster_controller")) as controller,
        connect(options) as agent,
        controller.listen(subjects.heartbeat("cluster-y"), note, queue="cluster_controller"),
    ):
        for number in range(60):
            if number == 20:
                agent.refresh()
            lost.append(not agent.connected)
            await agent.publish(subjects.heartbeat("cluster-y"), Heartbeat(agent_version=str(number)))
            await asyncio.sleep(0.01)
        await eventually(lambda: agent.connection.epoch == 2)
        await eventually(lambda: len(heard) == 60)
    assert not any(lost)


async def test_a_revoked_agent_is_cut_off_within_a_second_and_only_it(server: NatsServer) -> None:
    keys = server.keys
    revoked, other = accounts.generate_seed("user"), accounts.generate_seed("user")
    system = server.directory / "system.creds"
    system.write_text(accounts.system_credentials(keys, datetime.now(UTC)))
    account = AgentsAccount(
        keys.public("agents"), keys.public("platform"), keys.public("agents-signing"), keys.seed_file("operator")
    )
    revocations = RevocationList(account, (server.url,), system, lambda: datetime.now(UTC))
    async with (
        connect(agent_options(server, "cluster-r", revoked)) as bad,
        connect(agent_options(server, "cluster-o", other)) as good,
    ):
        assert bad.connected
        assert good.connected
        # JWTs are issued in whole seconds, and those of the second of the revocation count as issued before.
        await revocations.push({accounts.public_key(revoked): datetime.now(UTC) + timedelta(seconds=30)})
        await eventually(lambda: not bad.connected, within_s=1.0)
        epoch = bad.connection.epoch
        await asyncio.sleep(1.5)
        assert bad.connection.epoch == epoch
        assert not bad.connected
        assert good.connected
        assert good.connection.epoch == 1
        await asyncio.sleep(1)
        await revocations.push({})
        await eventually(lambda: bad.connected)
