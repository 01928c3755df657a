"""What each credential can't do, tried with the raw client: nothing is left to our own code's good manners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from integration.harness.nats import NatsServer
from libs.common import errors
from libs.common.bus import accounts
from libs.common.bus.client import RawMessage
from libs.common.bus.connection import NatsOptions
from libs.common.bus.credentials import Credential
from libs.common.bus.jetstream_api import JetStreamApi
from libs.common.bus.nats import NatsBus, connect
from libs.common.contracts import methods, permissions, subjects
from libs.common.contracts.messages import AgentCredential, AgentRenewal, Empty, Heartbeat
from libs.common.contracts.methods import OWNERS, RENEW_AGENT, SERVICES
from libs.common.resources.registry import BUCKETS
from libs.common.store.jetstream import JetStreamStore
from tests.store.watching import eventually

JETSTREAM_API = (
    "INFO", "STREAM.CREATE.x", "STREAM.UPDATE.KV_identity", "STREAM.NAMES", "STREAM.LIST", "STREAM.INFO.KV_identity",
    "STREAM.DELETE.KV_identity", "STREAM.PURGE.KV_identity", "STREAM.MSG.GET.KV_identity", "STREAM.MSG.DELETE.KV_identity",
    "STREAM.SNAPSHOT.KV_identity", "STREAM.RESTORE.KV_identity", "STREAM.PEER.REMOVE.KV_identity",
    "STREAM.LEADER.STEPDOWN.KV_identity", "CONSUMER.CREATE.KV_identity", "CONSUMER.CREATE.KV_identity.c.$KV.identity.>",
    "CONSUMER.DURABLE.CREATE.KV_identity.c", "CONSUMER.NAMES.KV_identity", "CONSUMER.LIST.KV_identity",
    "CONSUMER.INFO.KV_identity.c", "CONSUMER.DELETE.KV_identity.c", "CONSUMER.PAUSE.KV_identity.c",
    "CONSUMER.MSG.NEXT.KV_identity.c", "CONSUMER.UNPIN.KV_identity.c", "DIRECT.GET.KV_identity",
    "DIRECT.GET.KV_identity.$KV.identity.users.ann", "META.LEADER.STEPDOWN", "SERVER.REMOVE", "ACCOUNT.PURGE.x",
)  # fmt: skip


def agent_options(server: NatsServer, uid: str, seed: bytes, ttl_s: int = 3600, address: str = "") -> NatsOptions:
    async def credential() -> Credential:
        jwt = accounts.issue_agent_jwt(
            server.keys.seed("agents-signing"), server.keys.public("agents"), uid, accounts.public_key(seed), ttl_s,
            datetime.now(UTC),
        )  # fmt: skip
        return Credential(jwt, seed.decode())

    return server.options(credential, name=f"agent {uid}", inbox_prefix=subjects.agent_inbox(uid), server=address)


@asynccontextmanager
async def agent_of(server: NatsServer, uid: str) -> AsyncGenerator[NatsBus, None]:
    async with connect(agent_options(server, uid, accounts.generate_seed("user"))) as bus:
        yield bus


@pytest.fixture
async def agent(server: NatsServer) -> AsyncGenerator[NatsBus, None]:
    async with agent_of(server, "cluster-1") as bus:
        yield bus


async def refuses(bus: NatsBus, subject: str) -> bool:
    """Whether the server refuses to take a request from this client; a request that reaches nobody was taken."""
    try:
        await bus.connection.request(subject, b"{}", timeout_s=2)
    except errors.Denied:
        return True
    except (errors.Unavailable, errors.Timeout):
        return False
    return False


# ── agents ──


async def test_an_agent_is_answered_on_its_own_subjects(server: NatsServer, agent: NatsBus) -> None:
    async with connect(server.connect_as("cluster_controller")) as controller:

        async def renew(message: object) -> AgentCredential:
            return AgentCredential(
                cluster="c", cluster_uid=message.tokens[0], jwt="j", expires_at=datetime.now(UTC), renew_after_s=1
            )

        async with controller.serve(RENEW_AGENT.subject, renew, queue="cluster_controller"):
            answer = await agent.request(RENEW_AGENT.agent_subject("cluster-1"), AgentRenewal(), AgentCredential)
    assert answer.cluster_uid == "cluster-1"


async def test_heartbeats_reach_the_hub_and_notices_the_agent(server: NatsServer, agent: NatsBus) -> None:
    heard: list[str] = []

    async def note(message: object) -> None:
        heard.append(message.subject)

    async with (
        connect(server.connect_as("cluster_controller")) as controller,
        controller.listen(subjects.heartbeat("*"), note),
        agent.listen(subjects.notice("cluster-1"), note),
    ):
        await agent.publish(subjects.heartbeat("cluster-1"), Heartbeat(agent_version="1"))
        await controller.publish(subjects.notice("cluster-1"), Empty())
        await controller.publish(subjects.notice("cluster-2"), Empty())
        await eventually(lambda: len(heard) >= 2)
        await asyncio.sleep(0.1)
    assert sorted(heard) == ["down.cluster-1.notify", "up.cluster-1.hb"]


async def test_an_agent_cannot_speak_for_another_cluster_or_to_services(agent: NatsBus) -> None:
    forbidden = [
        RENEW_AGENT.agent_subject("cluster-2"), subjects.heartbeat("cluster-2"), "up.*.hb", "up.cluster-10.hb", "up.hb", "down.cluster-1.notify",
        *(method.subject for method in methods.METHODS if not method.for_agents),
        *(f"$KV.{bucket}.users.ann" for bucket in BUCKETS), "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO.x", "_INBOX.x", "_INBOX_svc_identity.x",
        "$JS.ACK.KV_identity.c.1.1.1.1.1", "anything",
    ]  # fmt: skip
    for subject in forbidden:
        assert await refuses(agent, subject), subject


async def test_an_agent_has_nothing_of_jetstream(agent: NatsBus) -> None:
    for operation in JETSTREAM_API:
        assert await refuses(agent, f"$JS.API.{operation}"), operation


async def test_an_agent_hears_nothing_that_is_not_for_it(server: NatsServer, agent: NatsBus, admin: NatsBus) -> None:
    heard: list[str] = []

    def note(message: RawMessage) -> None:
        heard.append(message.subject)

    listened = (">", "*", "down.>", "down.*.notify", "down.cluster-2.>", "up.>", "up.cluster-2.>", "_INBOX.>", "_INBOX_cluster-2.>", "_INBOX_>", "$KV.>", "$JS.>", "$SYS.>", "svc.>", "_R_.>")  # fmt: skip
    for subject in listened:
        with pytest.raises(errors.Denied, match="may not hear"):
            await agent.connection.subscribe(subject, note)
    spoken = (
        "down.cluster-2.notify",
        "up.cluster-2.hb",
        "$KV.identity.users.ann",
        "svc.identity.v1.write",
        "_INBOX.x",
        "_INBOX_cluster-2.x",
    )
    for subject in spoken:
        await admin.connection.publish(subject, b"secret")
    async with agent_of(server, "cluster-2") as other:
        await other.connection.publish("up.cluster-2.hb", b"secret")
        await other.connection.round_trip()
    await admin.connection.round_trip()
    await agent.connection.round_trip()
    assert heard == []


async def test_an_agent_cannot_send_more_than_its_share(agent: NatsBus) -> None:
    limit = permissions.AGENT_PAYLOAD_BYTES
    with pytest.raises(errors.HerdsmanError):
        await agent.connection.request(subjects.heartbeat("cluster-1"), b"x" * (limit + 1), timeout_s=2)


async def test_the_signing_key_of_agents_makes_no_other_user(server: NatsServer) -> None:
    seed = accounts.generate_seed("user")
    claims = {"type": "user", "version": 2, "issuer_account": server.keys.public("agents"), "pub": {"allow": [">"]}}

    async def credential() -> Credential:
        jwt = accounts._sign(
            "x", accounts.public_key(seed), claims, server.keys.seed("agents-signing"), datetime.now(UTC)
        )
        return Credential(jwt, seed.decode())

    async with asyncio.timeout(10):
        async with connect(server.options(credential, name="forged")) as bus:
            assert not bus.connected


# ── services ──


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_writes_its_own_bucket_alone(server: NatsServer, admin: NatsBus, service: str) -> None:
    for bucket in BUCKETS:
        await JetStreamStore(admin, bucket).ensure()
    async with connect(server.connect_as(service)) as bus:
        for bucket in BUCKETS:
            if service in OWNERS and bucket == service:
                store = JetStreamStore(bus, bucket)
                await store.ensure()
                revision = await store.create("things.mine", b"1")
                await store.delete("things.mine", b"1", revision)
                continue
            stream = permissions.stream_of(bucket)
            for subject in (
                f"$KV.{bucket}.things.mine", f"$JS.API.STREAM.UPDATE.{stream}", f"$JS.API.STREAM.DELETE.{stream}",
                f"$JS.API.STREAM.PURGE.{stream}", f"$JS.API.STREAM.MSG.DELETE.{stream}", f"$JS.API.STREAM.RESTORE.{stream}",
            ):  # fmt: skip
                assert await refuses(bus, subject), subject


async def test_nobody_else_can_wipe_a_bucket_with_a_rollup_header(server: NatsServer, admin: NatsBus) -> None:
    store = JetStreamStore(admin, "identity")
    await store.ensure()
    keys = [f"users.roll{n}" for n in range(3)]
    for key in keys:
        await store.create(key, b"1")
    for service in SERVICES:
        if service != "identity":
            async with connect(server.connect_as(service)) as bus:
                with pytest.raises(errors.Denied):
                    await bus.connection.request(
                        "$KV.identity.users.roll0", b"", timeout_s=2, headers={"Nats-Rollup": "all"}
                    )
    for key in keys:
        entry = await store.get(key)
        await store.delete(key, b"1", entry.revision)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_reads_the_buckets_it_needs_and_no_other(
    server: NatsServer, admin: NatsBus, service: str
) -> None:
    for bucket in BUCKETS:
        await JetStreamStore(admin, bucket).ensure()
    async with connect(server.connect_as(service)) as bus:
        for bucket in BUCKETS:
            if bucket in permissions.READS[service]:
                watching = JetStreamStore(bus, bucket).watch(name=service)
                assert await anext(watching) is not None
                await watching.aclose()
            else:
                stream = permissions.stream_of(bucket)
                for operation in (
                    f"STREAM.MSG.GET.{stream}", f"CONSUMER.CREATE.{stream}.c.$KV.{bucket}.>", f"STREAM.INFO.{stream}",
                    f"STREAM.SNAPSHOT.{stream}", f"DIRECT.GET.{stream}",
                ):  # fmt: skip
                    assert await refuses(bus, f"$JS.API.{operation}"), operation


async def test_a_service_cannot_answer_for_another_or_hear_its_replies(server: NatsServer, admin: NatsBus) -> None:
    heard: list[str] = []
    async with connect(server.connect_as("gateway")) as gateway:
        for subject in ("svc.identity.v1.write", "svc.>", "_INBOX_svc_identity.>", "_INBOX.>", ">"):
            with pytest.raises(errors.Denied, match="may not hear"):
                await gateway.connection.subscribe(subject, lambda message: heard.append(message.subject))
        for subject in ("svc.identity.v1.write", "_INBOX_svc_identity.x", "_INBOX.x"):
            await admin.connection.publish(subject, b"secret")
        await admin.connection.round_trip()
        await gateway.connection.round_trip()
    assert heard == []


async def test_what_is_forbidden_is_said_at_once_and_not_by_a_timeout(server: NatsServer) -> None:
    async with connect(server.connect_as("gateway")) as gateway:
        with pytest.raises(errors.Denied, match='"gateway" may not send on'):
            await JetStreamApi(gateway.connection).publish("$KV.identity.users.ann", b"1")
