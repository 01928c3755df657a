"""`herdsman up`: state is found again, several run side by side, Ctrl-C ends everything, bad circumstances get a clear sentence."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from integration.harness.hub import BIN, Hub, free_port, run_program

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_second_start_finds_everything_again_and_is_ready_in_time(tmp_path):
    hub = Hub(tmp_path, "--no-local-cluster")
    await hub.start()
    record = hub.record()
    assert set(record) >= {"url", "ca_file", "admin_user", "admin_password_file", "nats_url", "pids"}
    assert stat.S_IMODE(Path(record["admin_password_file"]).stat().st_mode) == 0o600
    admin = await hub.admin()
    await hub.person("ada")
    assert await hub.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in record["pids"].values())
    took = await hub.start()
    assert "user.management.herdsman.dev/ada" in await admin.sees("herdsman", "get", "users", "-o", "name")
    said = [line for line in hub.log.splitlines() if "ready in" in line]
    assert len(said) == 2, hub.log
    assert took < 15, "far beyond the budget of 5 s, which `make bench` measures"
    await hub.stop()


async def test_two_run_side_by_side_and_one_folder_belongs_to_one(bare_hub, tmp_path):
    other = Hub(tmp_path, "--no-local-cluster")
    await other.start()
    assert (await bare_hub.get("/readyz"))[0] == 200
    same_folder = await run_program(
        BIN / "herdsman", "up", "--data-dir", other.data, "--port", str(free_port()), "--no-local-cluster"
    )
    assert same_folder.code != 0
    assert str(other.record()["pid"]) in same_folder.err + same_folder.out
    same_port = await run_program(
        BIN / "herdsman", "up", "--data-dir", tmp_path / "third", "--port", str(other.port), "--no-local-cluster"
    )
    assert same_port.code != 0
    assert f"port {other.port}" in same_port.err + same_port.out
    await other.stop()


async def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    answer = await run_program(BIN / "herdsman", "up", "--data-dir", file / "data", "--no-local-cluster")
    assert answer.code != 0
    assert str(file) in answer.err + answer.out
    assert "Traceback" not in answer.err


async def test_ready_means_all_services(bare_hub):
    status, body = await bare_hub.get("/readyz?verbose")
    assert status == 200
    names = ("identity", "authz", "project", "node_registry", "cluster_controller")
    assert all(name in body.decode() for name in names), body


async def test_the_version_is_said_in_the_form_that_kubectl_reads(bare_hub):
    status, body = await bare_hub.get("/version")
    assert status == 200
    assert json.loads(body)["major"]
