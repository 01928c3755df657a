from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from libs.common import errors
from libs.common.resources import codec
from libs.common.resources.identity import User, UserSpec
from libs.common.resources.meta import ObjectMeta
from libs.common.store.informer import Informer
from libs.common.store.memory import MemoryStore
from libs.common.store.objects import Objects, encode_unique, modify, read
from tests.conftest import Clock


def made(name: str, **meta: object) -> User:
    return User(metadata=ObjectMeta(name=name, uid=f"u-{name}", generation=1, **meta), spec=UserSpec(display_name=name))


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore("identity")
    for name in ("ann", "bob"):
        await store.create(f"users.{name}", encode_unique(made(name)))
    await store.create("tokens.t1", b"\x80")
    return store


@pytest.fixture
async def users(store: MemoryStore) -> AsyncGenerator[Objects[User], None]:
    informer = Informer(store)
    task = asyncio.create_task(informer.run())
    await informer.synced.wait()
    view = Objects(informer, User)
    yield view
    view.close()
    task.cancel()
    await asyncio.wait([task])


async def test_a_view_has_the_objects_of_its_kind_alone(users: Objects[User]) -> None:
    assert sorted(users.names()) == ["ann", "bob"]
    assert sorted(u.spec.display_name for u in users.all()) == ["ann", "bob"]
    assert users.get("eve") is None


async def test_an_object_is_decoded_once_for_each_revision(
    store: MemoryStore, users: Objects[User], clock: Clock
) -> None:
    first = users.get("ann")
    assert first is not None
    assert users.get("ann") is first

    def enable(user: User) -> bool:
        return user.status.set_condition("Ready", True, "Made", "", clock())

    written = await modify(store, User, "ann", enable, now=clock)
    await users.informer.wait_revision(int(written.metadata.resource_version or 0))
    second = users.get("ann")
    assert second is not None
    assert second is not first
    assert second.metadata.resource_version == written.metadata.resource_version


async def test_an_object_that_cannot_be_read_is_an_error_and_not_missing(
    store: MemoryStore, users: Objects[User]
) -> None:
    revision = await store.create("users.broken", b"\xc1")
    await users.informer.wait_revision(revision)
    with pytest.raises(errors.Internal):
        users.get("broken")
    with pytest.raises(errors.Internal):
        users.all()
    assert users.get("ann") is not None


async def test_modify_writes_only_when_there_is_something_to_write(store: MemoryStore, clock: Clock) -> None:
    before = await store.get("users.ann")
    unchanged = await modify(store, User, "ann", lambda user: False, now=clock)
    assert (await store.get("users.ann")) == before
    assert unchanged.metadata.resource_version == str(before.revision)


async def test_modify_applies_the_change_again_when_somebody_came_between(store: MemoryStore, clock: Clock) -> None:
    runs = 0

    def set_hash(user: User) -> bool:
        user.private.password_hash = "hash"
        return True

    async def race() -> None:
        nonlocal runs

        def set_principal(user: User) -> bool:
            nonlocal runs
            runs += 1
            user.status.principal_id = "local:user:1"
            return True

        original = store.update

        async def update_after_another(key: str, value: bytes, revision: int, *, ttl_s: int | None = None) -> int:
            store.update = original  # type: ignore[method-assign]
            await modify(store, User, "ann", set_hash, now=clock)
            return await original(key, value, revision, ttl_s=ttl_s)

        store.update = update_after_another  # type: ignore[method-assign]
        await modify(store, User, "ann", set_principal, now=clock)

    await race()
    ann = await read(store, User, "ann")
    assert runs == 2
    assert (ann.private.password_hash, ann.status.principal_id) == ("hash", "local:user:1")


async def test_modify_of_the_status_keeps_the_generation_and_says_when_it_was_written(
    store: MemoryStore, clock: Clock
) -> None:
    def change_status(user: User) -> bool:
        user.status.principal_id = "local:user:1"
        return True

    def change_spec(user: User) -> bool:
        user.spec.enabled = False
        return True

    await modify(store, User, "ann", change_status, now=clock)
    clock.forward(60)
    ann = await modify(store, User, "ann", change_status, now=clock)
    assert ann.metadata.generation == 1
    managed = ann.metadata.managed_fields or []
    assert [(m.manager, m.subresource) for m in managed] == [("herdsman", "status")]
    assert (await modify(store, User, "ann", change_spec, now=clock)).metadata.generation == 2


async def test_taking_the_last_finalizer_of_a_deleting_object_deletes_it(store: MemoryStore, clock: Clock) -> None:
    await store.create("users.eve", encode_unique(made("eve", deletion_timestamp=clock(), finalizers=["a", "b"])))

    def finish(user: User) -> bool:
        assert user.metadata.finalizers
        user.metadata.finalizers = user.metadata.finalizers[1:]
        return True

    await modify(store, User, "eve", finish, now=clock)
    assert (await read(store, User, "eve")).metadata.finalizers == ["b"]
    await modify(store, User, "eve", finish, now=clock)
    with pytest.raises(errors.NotFound, match=r'users\.management\.herdsman\.dev "eve" not found'):
        await read(store, User, "eve")
    assert codec.decode(User, store._last["users.eve"].value, 1).spec.display_name == "eve"


async def test_each_encoding_has_an_operation_id_of_its_own() -> None:
    ids = {codec.operation_id(encode_unique(made("ann"))) for _ in range(10)}
    assert len(ids) == 10
