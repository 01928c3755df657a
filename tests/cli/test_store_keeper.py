"""What looks after the store's disk, on values: when it restarts, when it waits, and that each thing is said once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from libs.common.bus.dead_letters import DEAD_LETTERS
from libs.common.bus.server import STREAMS_BYTES, remove_indexes
from libs.common.store.buckets import SPECS
from services.cli.up.store_keeper import ROOM_BYTES, StoreKeeper, store_health

PLENTY, NONE = 10 * 2**30, 0
FULL = "no space left on device"


class World:
    """A disk and a store that heals by a restart only when there is room, as nats-server does."""

    def __init__(self) -> None:
        self.free = PLENTY
        self.frozen = ""
        self.incurable = False
        self.restarts = 0
        self.said: list[str] = []
        self.time = 100.0
        self.keeper = StoreKeeper(
            Path("/data"), self._health, self._restart, self.said.append,
            free_bytes=lambda _folder: self.free, monotonic=lambda: self.time,
        )  # fmt: skip

    async def _health(self) -> str:
        return self.frozen

    async def _restart(self) -> None:
        self.restarts += 1
        if not self.incurable:
            self.frozen = ""

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.time += 3
            await self.keeper.look()


@pytest.fixture
def world() -> World:
    return World()


async def test_nothing_is_said_or_done_while_all_is_well(world):
    await world.look(5)
    assert (world.said, world.restarts) == ([], 0)


async def test_a_full_disk_is_told_once_and_left_alone(world):
    world.frozen, world.free = FULL, NONE
    await world.look(5)
    assert world.restarts == 0
    assert len(world.said) == 1
    assert "takes no writes (no space left on device)" in world.said[0]
    assert "free 257 MiB on the disk of /data" in world.said[0]


async def test_room_again_means_one_restart_and_one_line(world):
    world.frozen, world.free = FULL, NONE
    await world.look()
    world.free = ROOM_BYTES - 1
    await world.look()
    assert world.restarts == 0, "with less than that it would be full again at once"
    world.free = PLENTY
    await world.look(5)
    assert world.restarts == 1
    assert "takes them again" in world.said[-1]


async def test_it_is_told_anew_when_it_fills_up_again(world):
    for _ in range(2):
        world.frozen, world.free = FULL, NONE
        await world.look(2)
        world.free = PLENTY
        await world.look(10)
    assert [("takes no writes" in line) for line in world.said].count(True) == 2
    assert world.restarts == 2


async def test_a_disk_that_stays_broken_is_restarted_ever_more_rarely(world):
    world.frozen, world.incurable = "input/output error", True
    await world.look(200)  # ten minutes
    assert 3 <= world.restarts <= 7
    assert len(world.said) == 1
    assert "check that disk" in world.said[0]


async def test_little_room_is_told_before_it_is_too_late(world):
    world.free = 100 * 2**20
    await world.look(3)
    assert world.said == ["only 100 MiB are free on the disk of /data: without any, the hub takes no writes"]
    world.free = PLENTY
    await world.look()
    world.free = 90 * 2**20
    await world.look()
    assert len(world.said) == 2


WRITE_ERROR = '{"status":"unavailable","error":"JetStream stream \'A > KV_identity\' write error: write /d/jetstream/A/7.blk: no space left on device"}'


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        ("503 Service Unavailable", WRITE_ERROR, FULL),
        ("200 OK", '{"status":"ok"}', ""),
        ("503 Service Unavailable", '{"status":"unavailable","error":"JetStream is not current"}', ""),
    ],
)
async def test_only_a_write_error_counts(status, body, expected):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        assert await store_health(server.sockets[0].getsockname()[1])() == expected


async def test_nobody_there_is_not_a_write_error():
    assert await store_health(0)() == ""


def test_indexes_are_removed_and_messages_are_not(tmp_path):
    messages = tmp_path / "jetstream" / "jetstream" / "ACCOUNT" / "streams" / "KV_identity" / "msgs"
    messages.mkdir(parents=True)
    for name in ("index.db", "1.blk"):
        (messages / name).write_bytes(b"x")
    assert remove_indexes(tmp_path) == 1
    assert [file.name for file in messages.iterdir()] == ["1.blk"]
    assert remove_indexes(tmp_path) == 0


def test_all_streams_fit_however_small_the_disk():
    assert sum(spec.max_bytes for spec in SPECS.values()) + DEAD_LETTERS.max_bytes <= STREAMS_BYTES
