"""Backup and restore, tested by destroying the store."""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from integration.harness.nats import NatsServer
from integration.nats.faults import following, read_all
from libs.common import errors
from libs.common.bus.nats import NatsBus, connect
from libs.common.contracts.permissions import stream_of
from libs.common.resources.registry import BUCKETS
from libs.common.store.backup import ORDER, back_up, check_backup, restore
from libs.common.store.jetstream import JetStreamStore
from tests.store.watching import eventually


async def fill(bus: NatsBus) -> dict[str, dict[str, bytes]]:
    contents: dict[str, dict[str, bytes]] = {}
    for bucket in BUCKETS:
        store = JetStreamStore(bus, bucket)
        await store.ensure()
        for number in range(50):
            await store.create(f"things.n{number}", f"{bucket} {number} ".encode() * 500)
        entry = await store.get("things.n0")
        await store.delete("things.n0", entry.value, entry.revision)
        contents[bucket] = await read_all(bus, bucket)
    return contents


def now() -> datetime:
    return datetime.now(UTC)


def test_a_backup_has_every_bucket() -> None:
    assert set(ORDER) == set(BUCKETS)


async def test_a_destroyed_store_comes_back_as_it_was(own_server: NatsServer, tmp_path: Path) -> None:
    file = tmp_path / "hub.backup"
    async with connect(own_server.connect_as("administration")) as bus:
        contents = await fill(bus)
        store = JetStreamStore(bus, "identity")
        before = await store.get("things.n1")
        async with following(JetStreamStore(bus, "identity")) as (informer, _changes):
            await informer.synced.wait()
            epoch = informer.epoch
            await back_up(store.api, file, now)
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            await store.update("things.n2", b"after the backup", (await store.get("things.n2")).revision)
            for bucket in BUCKETS:
                await store.api.call(f"STREAM.DELETE.{stream_of(bucket)}")
            await restore(store.api, file)
            for bucket, content in contents.items():
                assert await read_all(bus, bucket) == content
            assert await store.get("things.n1") == before
            # It may look the same before it was noticed: another epoch is what says that it is another life.
            await eventually(lambda: informer.epoch != epoch)
            await eventually(lambda: {k: e.value for k, e in informer.entries.items()} == contents["identity"])
            with pytest.raises(errors.NotFound):
                await store.get("things.n0")
            await store.update("things.n1", b"new", before.revision)


async def test_a_restore_replaces_nothing_unless_told_to(own_server: NatsServer, tmp_path: Path) -> None:
    file = tmp_path / "hub.backup"
    async with connect(own_server.connect_as("administration")) as bus:
        contents = await fill(bus)
        store = JetStreamStore(bus, "identity")
        await back_up(store.api, file, now)
        await store.create("things.later", b"1")
        with pytest.raises(errors.Conflict, match="say that it may be replaced"):
            await restore(store.api, file)
        assert (await store.get("things.later")).value == b"1"
        await restore(store.api, file, replace=True)
        assert await read_all(bus, "identity") == contents["identity"]


async def test_a_backup_goes_into_a_new_hub(own_server: NatsServer, tmp_path: Path) -> None:
    file = tmp_path / "hub.backup"
    async with connect(own_server.connect_as("administration")) as bus:
        contents = await fill(bus)
        await back_up(JetStreamStore(bus, "identity").api, file, now)
    with NatsServer() as other:
        async with connect(other.connect_as("administration")) as bus:
            for bucket in BUCKETS:
                await JetStreamStore(bus, bucket).ensure()
            await restore(JetStreamStore(bus, "identity").api, file)
            for bucket, content in contents.items():
                assert await read_all(bus, bucket) == content


async def test_a_damaged_backup_is_refused_before_anything_is_touched(own_server: NatsServer, tmp_path: Path) -> None:
    file = tmp_path / "hub.backup"
    async with connect(own_server.connect_as("administration")) as bus:
        contents = await fill(bus)
        store = JetStreamStore(bus, "identity")
        await back_up(store.api, file, now)
        assert {part.stream for part in check_backup(file).parts} == {stream_of(bucket) for bucket in BUCKETS}
        whole = file.read_bytes()
        start = whole.index(b"identity.snapshot", whole.index(b"authz.snapshot"))
        flipped = bytearray(whole)
        flipped[start + 1000] ^= 0xFF
        for damaged in (bytes(flipped), whole[: len(whole) // 2], b"", b"x" * 5000):
            file.write_bytes(damaged)
            with pytest.raises(errors.Invalid):
                await restore(store.api, file, replace=True)
        with pytest.raises(errors.Unavailable):
            await restore(store.api, tmp_path / "missing", replace=True)
        assert await read_all(bus, "identity") == contents["identity"]


async def test_a_backup_that_is_cut_off_leaves_no_file(own_server: NatsServer, tmp_path: Path) -> None:
    async with connect(own_server.connect_as("administration")) as bus:
        await fill(bus)
        task = asyncio.create_task(back_up(JetStreamStore(bus, "identity").api, tmp_path / "hub.backup", now))
        while not in_folder(tmp_path):  # noqa: ASYNC110 - the moment at which it has begun has no event
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert in_folder(tmp_path) == []


def in_folder(folder: Path) -> list[Path]:
    return list(folder.iterdir())
