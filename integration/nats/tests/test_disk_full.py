"""A full disk: writes fail clearly, reads go on, health says so, and after room is made a restart brings all back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.harness.nats import NatsServer
from integration.nats.faults import read_all
from libs.common import errors
from libs.common.bus.nats import connect
from libs.common.store.breaker import PROBE_EVERY_S
from libs.common.store.jetstream import JetStreamStore

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="herdsman-tmpfs-") as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", folder], check=False, capture_output=True
        )
        if mounted.returncode:
            pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_fails_writes_clearly_and_nothing_acknowledged_is_lost(small_disk: Path) -> None:
    with NatsServer(store=small_disk) as server:
        async with connect(server.connect_as("administration")) as bus:
            store = JetStreamStore(bus, "identity")
            await store.ensure()
            ballast = small_disk / "ballast"
            ballast.write_bytes(b"x" * 20_000_000)
            acknowledged: dict[str, bytes] = {}
            with pytest.raises(errors.Unavailable, match="nothing was written"):
                await _fill(store, acknowledged)
            assert len(acknowledged) > 20
            assert "no space left" in await asyncio.to_thread(server.health)
            for key, value in acknowledged.items():
                assert (await store.get(key)).value == value
            began = time.monotonic()
            with pytest.raises(errors.Unavailable, match="disk is probably full"):
                await store.create("users.at-once", b"op")
            assert time.monotonic() - began < 0.1

            ballast.unlink()
            await asyncio.to_thread(server.restart)
            assert acknowledged.items() <= (await read_all(bus, "identity")).items()
            await asyncio.sleep(PROBE_EVERY_S)
            await store.create("users.after", b"op-after")
            await store.create("users.after-that", b"op-after-that")


async def _fill(store: JetStreamStore, acknowledged: dict[str, bytes]) -> None:
    for number in range(200):
        value = f"op-{number} ".encode() * 50_000
        await store.create(f"users.u{number}", value)
        acknowledged[f"users.u{number}"] = value
