"""Files of all sizes by `kubectl cp`, both ways, byte for byte; also when the client's line is slow."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path

import pytest

from integration.kubelab.kubectl import kubectl
from integration.proxy.slow_line import SlowLine
from integration.proxy.tests.conftest import write_kubeconfig
from integration.proxy.tests.test_streams import CARRIERS, env, idle_again

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full]
MIB = 1024 * 1024
LONG = pytest.mark.skipif(not os.environ.get("HERDSMAN_LONG_TESTS"), reason="HERDSMAN_LONG_TESTS is not set")


def make_file(path: Path, size: int) -> str:
    """Random bytes; returns their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            block = os.urandom(min(MIB, size - start))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def copy_both_ways(way, kubeconfig, carrier, folder, size, timeout_s):
    """There, checked in the pod, and back, checked here; returns the seconds that each way took."""
    sent = await asyncio.to_thread(make_file, folder / "there", size)
    times = []
    for arguments in (("cp", str(folder / "there"), "web:/tmp/copied"), ("cp", "--retries=0", "web:/tmp/copied", str(folder / "back"))):  # fmt: skip
        began = time.monotonic()
        answer = await kubectl(kubeconfig, *arguments, environment=env(carrier), timeout_s=timeout_s)
        times.append(time.monotonic() - began)
        assert answer.code == 0, answer.err
        if len(times) == 1:
            summed = await kubectl(
                way.cluster.kubeconfig, "exec", "web", "--", "sha256sum", "/tmp/copied", timeout_s=120
            )
            assert summed.out.split()[0] == sent
    assert await asyncio.to_thread(hash_file, folder / "back") == sent
    await kubectl(way.cluster.kubeconfig, "exec", "web", "--", "rm", "/tmp/copied")
    return times


@pytest.mark.timeout(300)
@pytest.mark.parametrize("carrier", CARRIERS)
async def test_64_mebibytes_are_the_same_there_and_back(web, carrier, tmp_path):
    await copy_both_ways(web, web.kubeconfig, carrier, tmp_path, 64 * MIB, 120)
    await idle_again(web)


@LONG
@pytest.mark.timeout(3000)
async def test_a_gibibyte_over_a_line_of_two_megabytes_a_second(web, tmp_path):
    """Nine minutes each way: nothing on the way may lose patience, memory or a byte."""
    async with SlowLine(web.door.port, 2_000_000) as line:
        config = write_kubeconfig(tmp_path / "slow", web.door, web.token, port=line.port)
        before = resident_mb()
        times = await copy_both_ways(web, config, "websocket", tmp_path, 1024 * MIB, 1400)
        after = resident_mb()
    print(f"there {times[0]:.0f} s, back {times[1]:.0f} s, resident {before} → {after} MB")
    assert min(times) > 1024 * MIB / 2_000_000 * 0.9, "the line was not slow"
    assert after - before < 100
    await idle_again(web)


def resident_mb() -> int:
    """Of this process, in which front door and agent run."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1_000_000
