"""`herdsman up` in bad circumstances: killed, without privileges, where it may not write, on unusual addresses."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from integration.flows.test_plug import project
from integration.harness.hub import BIN, Hub, eventually, free_port, run_program
from integration.kubelab.kubectl import Answer

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(180)]
ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.mark.parametrize("victims", ["up alone", "everything at once"])
async def test_after_kill_9_the_next_start_finds_all_that_was_acknowledged(tmp_path, victims):
    hub = Hub(tmp_path, "--no-local-cluster")
    await hub.start()
    admin = await hub.admin()
    acknowledged: list[str] = []

    async def write() -> None:
        for number in range(1000):
            answer = await admin.kubectl(
                "herdsman", "create", "-f", "-", "--request-timeout=3s", stdin=project(f"p-{number}")
            )
            if answer.code:
                return
            acknowledged.append(f"p-{number}")

    for _ in range(2):
        writing = asyncio.create_task(write(), name="writer")
        await asyncio.sleep(1.5)
        pids = list(hub.pids().values())
        assert hub.process is not None
        if victims == "everything at once":
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        hub.process.kill()
        await hub.process.wait()
        await writing
        await eventually(partial(_all_gone, pids), 10)
        await hub.start()
        kept = (await admin.sees("herdsman", "get", "projects", "-o", "name")).split()
        assert {f"project.management.herdsman.dev/{name}" for name in acknowledged} <= set(kept)
        made = await admin.kubectl("herdsman", "delete", "projects", "--all")
        assert made.code == 0, made.err
        acknowledged.clear()
    assert await hub.stop() == 0


async def _all_gone(pids: list[int]) -> bool:
    """Whether none of them lives; a zombie does not."""
    return not any(_lives(pid) for pid in pids)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_hub_that_listens_on_ipv6_alone_works_by_that_address(tmp_path):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        str(BIN / "herdsman"), "up", "--data-dir", str(tmp_path / "data"), "--host", "::1", "--port", str(port), "--no-local-cluster",
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        said = await _until_ready(process)
        url = f"https://[::1]:{port}"
        assert url in said
        await _sign_in(tmp_path, url)
    finally:
        await _end(process)


async def test_a_hub_for_other_machines_names_the_address_under_which_they_reach_it(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("203.0.113.1", 9))
        except OSError:
            pytest.skip("this machine has no way to others")
        address = str(probe.getsockname()[0])
    async with Hub(tmp_path, "--no-local-cluster", "--host", "0.0.0.0") as hub:
        _, writer = await asyncio.open_connection(
            address, hub.port, ssl=ssl.create_default_context(cafile=str(hub.ca_file)), server_hostname=address
        )
        writer.close()
        await _sign_in(tmp_path, hub.url)


async def _until_ready(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(60):
        while "Ctrl-C" not in said:
            line = await process.stderr.readline()
            assert line, said
            said += line.decode()
    return said


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(30):
                await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _sign_in(folder: Path, url: str) -> None:
    data = folder / "data"
    answer = await run_program(
        BIN / "herdsman", "login", url, "--ca-file", data / "pki" / "ca.crt", "--user", "admin",
        "--password-file", data / "admin-password", environment={"HERDSMAN_CONFIG_DIR": str(folder / "config")},
    )  # fmt: skip
    assert answer.code == 0, answer.err


@pytest.mark.parametrize(
    ("host", "expected"),
    [("203.0.113.9", "is no address of this machine"), ("no.such.invalid", "is no address of this machine")],
)
async def test_a_host_that_is_not_this_machine_is_a_sentence(tmp_path, host, expected):
    answer = await run_program(
        BIN / "herdsman",
        "up",
        "--data-dir",
        tmp_path / "data",
        "--host",
        host,
        "--port",
        str(free_port()),
        "--no-local-cluster",
    )
    assert answer.code == 1
    assert expected in answer.err
    assert "choose another --host" in answer.err
    assert "Traceback" not in answer.err


@pytest.fixture
def read_only(tmp_path) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("mounting needs root")
    folder = tmp_path / "read-only"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_read_only_disk_is_a_sentence(read_only):
    answer = await run_program(
        BIN / "herdsman", "up", "--data-dir", read_only / "data", "--port", str(free_port()), "--no-local-cluster"
    )
    assert answer.code == 1
    assert "it lies on a read-only file system: choose another place" in answer.err
    assert "Traceback" not in answer.err


class Unprivileged:
    """Runs the CLI as the user `nobody` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = Path(f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
        self.setpriv = shutil.which("setpriv")
        packages = next(path for path in map(Path, sys.path) if path.name == "site-packages")
        self.command = (
            str(self.setpriv), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env", "-i", f"PATH=/usr/bin:/bin:{BIN}",
            f"HOME={folder}", f"TMPDIR={folder}", f"PYTHONPATH={packages}:{ROOT}", "PYTHONDONTWRITEBYTECODE=1",
            str(self.python), "-m", "services.cli",
        )  # fmt: skip

    async def missing(self) -> str:
        """Why it cannot be done here."""
        if os.geteuid() or self.setpriv is None or not self.python.exists():
            return f"needs root, setpriv and {self.python}"
        answer = await self.run("--help")
        return "" if answer.code == 0 else f"the checkout cannot be read by others: {answer.err[-200:]}"

    async def run(self, *arguments: str) -> Answer:
        return await run_program(*self.command, *arguments)


async def test_it_needs_no_privileges():
    folder = Path(f"/tmp/herdsman-nobody-{os.getpid()}")  # pytest's own folders are closed to others
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    try:
        nobody = Unprivileged(folder)
        if reason := await nobody.missing():
            pytest.skip(reason)
        refused = await nobody.run("up", "--data-dir", "/var/lib/herdsman-test", "--no-local-cluster")
        assert refused.code == 1
        assert (
            "cannot use the folder /var/lib/herdsman-test: permission denied: choose a place that you may write to"
            in refused.err
        )
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            *nobody.command, "up", "--data-dir", str(folder / "data"), "--port", str(port), "--no-local-cluster",
            stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, cwd=folder,
        )  # fmt: skip
        try:
            await _until_ready(process)
            await _sign_in(folder, f"https://127.0.0.1:{port}")
        finally:
            await _end(process)
        assert all(path.stat().st_uid == NOBODY for path in (folder / "data").rglob("*"))
    finally:
        shutil.rmtree(folder)
