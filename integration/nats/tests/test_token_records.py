"""Records of tokens on the real server: what `tests/identity/test_token_records.py` says of the double."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

import pytest

from integration.harness.nats import NatsServer
from libs.common import errors
from libs.common.bus.nats import NatsBus, connect
from libs.common.contracts.permissions import stream_of
from libs.common.resources import codec
from libs.common.resources.identity import Token, TokenSpec
from libs.common.resources.meta import ObjectMeta
from libs.common.store.jetstream import JetStreamStore
from services.identity.tokens import Lifetimes, Tokens
from tests.access import made

ADA, BOB = made.user("ada"), made.user("bob")


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
async def stores(
    admin: NatsBus, server: NatsServer, bucket_name: str
) -> AsyncGenerator[tuple[JetStreamStore, JetStreamStore], None]:
    """The bucket over two connections, as two replicas have it."""
    async with connect(server.connect_as("administration")) as other:
        store = JetStreamStore(admin, bucket_name)
        await store.ensure()
        yield store, JetStreamStore(other, bucket_name)
        await store.api.call(f"STREAM.DELETE.{stream_of(bucket_name)}")


async def names(store: JetStreamStore) -> set[str]:
    return {entry.key.partition(".")[2] async for entry in store.scan("tokens") if not entry.deleted}


async def test_the_cap_is_exact_when_two_replicas_issue_for_one_user_at_once(
    stores: tuple[JetStreamStore, JetStreamStore],
) -> None:
    replicas = [Tokens(store, now, Lifetimes(), per_user=7) for store in stores]
    outcomes = await asyncio.gather(
        *(tokens.issue(ADA, "api") for _ in range(6) for tokens in replicas), return_exceptions=True
    )
    issued = {outcome.name for outcome in outcomes if not isinstance(outcome, BaseException)}
    assert len(issued) == 7
    assert all(isinstance(o, errors.TooManyRequests) for o in outcomes if isinstance(o, BaseException)), outcomes
    assert await names(stores[0]) == issued == set((await replicas[0].records.read(ADA.uid)).tokens)


async def test_a_record_that_was_empty_is_written_again_and_all_are_revoked_with_what_was_made_with_them(
    stores: tuple[JetStreamStore, JetStreamStore],
) -> None:
    here, there = (Tokens(store, now, Lifetimes(), per_user=300) for store in stores)
    for round_ in range(2):
        parent = await here.issue(ADA, "login")
        for _ in range(120):
            await there.issue(ADA, "exec", parent=parent.name)
        await there.issue(BOB, "api")
        assert await there.revoke(parent.name)
        assert await here.revoke_all(ADA.uid) <= 22
        assert len(await names(stores[1])) == round_ + 1


async def test_what_an_older_version_made_and_deleted_is_adopted(
    stores: tuple[JetStreamStore, JetStreamStore],
) -> None:
    store = stores[0]
    here, there = (Tokens(store, now, Lifetimes()) for store in stores)
    for number in range(30):
        spec = TokenSpec(user="ada", user_uid=ADA.uid, expires_at=now() + timedelta(days=1))
        meta = ObjectMeta(name=f"old{number}", uid=f"uid-{number}", creation_timestamp=now(), generation=1)
        await store.create(f"tokens.old{number}", codec.encode(Token(metadata=meta, spec=spec)))
    await here.adoption.catch_up()
    assert len((await there.records.read(ADA.uid)).tokens) == 30
    entry = await store.get("tokens.old7")
    await store.delete(entry.key, entry.value, entry.revision)
    await there.adoption.catch_up()
    assert (await here.records.read(ADA.uid)).tokens.keys() == {f"old{n}" for n in range(30)} - {"old7"}
    assert await there.revoke_all(ADA.uid) == 29
    assert await names(store) == set()
