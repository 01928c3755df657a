from __future__ import annotations

import asyncio

import pytest

from libs.common import errors
from libs.common.resources.identity import User
from libs.common.store.memory import MemoryStore
from libs.common.store.objects import read
from services.identity.bootstrap import bootstrap_admin
from services.identity.passwords import Passwords

PASSWORD = "made for this hub alone"


@pytest.fixture
async def passwords():
    made = Passwords(memory_kib=64, passes=1)
    yield made
    await made.aclose()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n", encoding="utf-8")
    return path


async def start(store, passwords, file, clock, *, any_user=False, name="admin", **more):
    return await bootstrap_admin(
        store, passwords, name, file, any_user=any_user, now=clock, **more
    )  # fmt: skip


async def test_the_first_user_is_made_with_the_given_password(passwords, file, clock):
    store = MemoryStore("identity")
    assert await start(store, passwords, file, clock)
    user = await read(store, User, "admin")
    assert await passwords.verify(user.private.password_hash, PASSWORD)
    assert user.status.must_change_password
    assert user.status.principal_id == f"local:user:{user.uid}"


async def test_a_password_that_nobody_else_knows_need_not_be_changed(passwords, file, clock):
    store = MemoryStore("identity")
    assert await start(store, passwords, file, clock, must_change=False)
    assert not (await read(store, User, "admin")).status.must_change_password


async def test_replicas_make_one_user(passwords, file, clock):
    store = MemoryStore("identity")
    made = await asyncio.gather(*(start(store, passwords, file, clock) for _ in range(4)))
    assert made.count(True) == 1


async def test_a_deleted_admin_never_comes_back(passwords, file, clock):
    store = MemoryStore("identity")
    await start(store, passwords, file, clock)
    entry = await store.get("users.admin")
    await store.delete(entry.key, entry.value, entry.revision)
    assert not await start(store, passwords, file, clock)
    with pytest.raises(errors.NotFound):
        await store.get("users.admin")


async def test_a_hub_that_has_users_is_never_bootstrapped_not_even_later(passwords, file, clock):
    store = MemoryStore("identity")
    assert not await start(store, passwords, file, clock, any_user=True)
    assert not await start(store, passwords, file, clock, any_user=False)


@pytest.mark.parametrize("content", ["", "short\n", "a" * 40])
async def test_no_weak_or_missing_password(passwords, tmp_path, clock, content):
    store, path = MemoryStore("identity"), tmp_path / "password"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(errors.Invalid):
        await start(store, passwords, path, clock)
    with pytest.raises(errors.Unavailable, match="cannot read"):
        await start(store, passwords, tmp_path / "absent", clock)
    with pytest.raises(errors.NotFound):
        await store.get("bootstrap.admin")


async def test_an_odd_name_is_refused(passwords, file, clock):
    with pytest.raises(errors.Invalid, match="cannot be called"):
        await start(MemoryStore("identity"), passwords, file, clock, name="system:admin")
