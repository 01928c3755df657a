"""The parts of `herdsman up` that need no running hub: folder, lock, leftovers, ports, certificates, settings, greeting."""

from __future__ import annotations

import asyncio
import importlib
import io
import json
import os
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.common import errors
from libs.common.crypto import ca
from libs.common.processes import ProcessId
from services.cli.main import EXIT_TIMEOUT, run
from services.cli.settings import Server, load_settings
from services.cli.up import bus, disk, pki, ports
from services.cli.up.config import SERVICES, Facts, render_configs
from services.cli.up.greeting import greet, next_commands
from services.cli.up.layout import Layout, default_data_dir
from services.cli.up.preparation import child_environment
from services.cli.up.progress import Progress
from services.cli.up.record import Record, RunLock, end_leftovers, is_running


@pytest.fixture
def layout(tmp_path) -> Layout:
    made = Layout(tmp_path / "data")
    made.make()
    return made


def facts(layout: Layout) -> Facts:
    return Facts(
        listen="127.0.0.1:8443", public_url="https://127.0.0.1:8443", nats_url="nats://127.0.0.1:4222",
        nats_websocket="127.0.0.1:4223", bus=bus.prepare(layout, port=4222, websocket_port=4223, monitoring_port=4224), admin_user="admin", log_level="info",
    )  # fmt: skip


def test_the_folder_is_private(layout):
    assert layout.root.stat().st_mode & 0o777 == 0o700
    for folder in (layout.keys, layout.pki, layout.logs, layout.agent):
        assert folder.stat().st_mode & 0o077 == 0


def test_a_path_that_cannot_be_a_folder_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(errors.Unavailable, match="a part of the path is a file"):
        Layout(tmp_path / "file" / "data").make()


def test_the_socket_path_is_short_enough_however_deep_the_folder(tmp_path):
    deep = Layout(tmp_path / ("x" * 60) / ("y" * 60))
    deep.make()
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(deep.gateway_socket))
        assert deep.runtime.stat().st_mode & 0o077 == 0
    finally:
        deep.gateway_socket.unlink(missing_ok=True)
        deep.runtime.rmdir()


def test_a_checkout_keeps_its_data_beside_itself(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "herdsman"\n')
    (tmp_path / "docs").mkdir()
    assert default_data_dir(tmp_path / "docs", {}) == tmp_path / ".data"


def test_elsewhere_the_data_lie_in_the_state_folder(tmp_path):
    assert default_data_dir(tmp_path, {"XDG_STATE_HOME": "/state"}) == Path("/state/herdsman")


def test_a_second_up_is_refused_with_the_pid_of_the_first(layout):
    first = RunLock(layout)
    first.acquire()
    try:
        assert is_running(layout)
        with pytest.raises(errors.Conflict, match=rf"pid {os.getpid()}"):
            RunLock(layout).acquire()
    finally:
        first.release()
    assert not is_running(layout)
    again = RunLock(layout)
    again.acquire()
    again.release()


async def test_leftovers_are_ended_when_they_are_provably_ours(layout):
    ours, stranger = (subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"]) for _ in range(2))  # noqa: ASYNC220
    try:
        mine, other = ProcessId.current(ours.pid), ProcessId.current(stranger.pid)
        assert mine is not None
        assert other is not None
        # The stranger has the pid that a dead child of ours once had.
        Record(layout, {}, {"nats": mine, "gateway": ProcessId(other.pid, other.start_ticks - 7)}).write()
        assert await end_leftovers(layout) == ["nats"]
        assert not mine.alive
        assert other.alive
    finally:
        for process in (ours, stranger):
            process.kill()
            process.wait()


def test_the_record_says_what_tools_need(layout):
    Record(layout, {"url": "https://x"}, {"nats": ProcessId(4711, 1)}).write()
    document = json.loads(layout.record.read_text())
    assert document == {"url": "https://x", "pids": {"nats": 4711}, "start_ticks": {"nats": 1}}
    assert layout.record.stat().st_mode & 0o777 == 0o600


def test_ports_are_remembered_and_changed_only_when_taken(tmp_path):
    file = tmp_path / "ports.json"
    first = ports.keep_ports(file, ("nats", "websocket"))
    assert first["nats"] != first["websocket"]
    assert ports.keep_ports(file, ("nats", "websocket")) == first
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", first["nats"]))
        holder.listen(1)
        second = ports.keep_ports(file, ("nats", "websocket"))
    assert second["nats"] != first["nats"]
    assert second["websocket"] == first["websocket"]


def test_a_busy_public_port_says_how_to_go_on():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        with pytest.raises(errors.Unavailable, match=r"in use.*--port"):
            ports.check_public("127.0.0.1", holder.getsockname()[1])


def test_a_host_that_is_not_this_machine(tmp_path):
    with pytest.raises(errors.HerdsmanError, match="no address of this machine"):
        ports.check_public("192.0.2.1", 8443)


def test_certificates_are_made_once_and_renewed_in_time(layout):
    now = datetime.now(UTC)
    assert pki.ensure_certificates(layout, "127.0.0.1", now) == "it is the first"
    authority, server = layout.ca_file.read_bytes(), layout.server_certificate.read_bytes()
    assert pki.ensure_certificates(layout, "127.0.0.1", now) == ""
    assert layout.server_certificate.read_bytes() == server
    assert "ends on" in pki.ensure_certificates(layout, "127.0.0.1", now + timedelta(days=380))
    assert layout.server_certificate.read_bytes() != server
    assert layout.ca_file.read_bytes() == authority
    assert layout.ca_key.stat().st_mode & 0o777 == 0o600
    assert layout.server_key.stat().st_mode & 0o777 == 0o600


def test_half_an_authority_is_never_replaced_silently(layout):
    pki.ensure_certificates(layout, "127.0.0.1", datetime.now(UTC))
    layout.ca_key.unlink()
    with pytest.raises(errors.Invalid, match="restore"):
        pki.ensure_certificates(layout, "127.0.0.1", datetime.now(UTC))


def test_the_certificate_names_the_address_to_listen_on():
    assert "10.1.2.3" in pki.server_names("10.1.2.3")
    assert "0.0.0.0" not in pki.server_names("0.0.0.0")
    assert {"localhost", "127.0.0.1"} <= set(pki.server_names("hub.example"))


def test_too_little_room_is_refused_and_little_room_is_told(tmp_path):
    with pytest.raises(errors.Unavailable, match="free some space"):
        disk.check_room(tmp_path, needed_bytes=1 << 60)
    assert disk.check_room(tmp_path, needed_bytes=0, advised_bytes=1 << 60)
    assert disk.check_room(tmp_path, needed_bytes=0, advised_bytes=0) == ""


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_accepts_the_settings_that_are_written_for_it(layout, service):
    """Against the service's own model, which refuses unknown fields."""
    from libs.common.runtime.config import ServiceConfig

    module = importlib.import_module(f"services.{service}.config")
    models = [
        m
        for m in vars(module).values()
        if isinstance(m, type) and issubclass(m, ServiceConfig) and m is not ServiceConfig
    ]
    assert len(models) == 1
    models[0].model_validate(render_configs(layout, facts(layout))[service])


def test_account_jwts_stay_the_same_so_that_revocations_survive_a_restart(layout):
    bus.prepare(layout, port=4222, websocket_port=4223, monitoring_port=4224)
    accounts = [line for line in layout.nats_config.read_text().splitlines() if line.startswith("  A")]
    assert len(accounts) == 3
    bus.prepare(layout, port=5222, websocket_port=5223, monitoring_port=5224)
    assert [line for line in layout.nats_config.read_text().splitlines() if line.startswith("  A")] == accounts


def test_settings_hold_no_secret(layout):
    layout.admin_password.write_text("open sesame")
    assert "open sesame" not in json.dumps(render_configs(layout, facts(layout)))


def test_children_do_not_inherit_a_clients_variables():
    made = child_environment(
        {"PATH": "/bin", "HERDSMAN_TOKEN": "t", "HERDSMAN_CONTEXT": "c", "HERDSMAN_CACHE_DIR": "/c"}
    )
    assert made == {"PATH": "/bin", "HERDSMAN_CACHE_DIR": "/c", "PYTHONUNBUFFERED": "1"}


def test_the_next_commands_are_commands(layout, monkeypatch):
    """Parsed by the real command line, up to the point where a hub would be called."""
    layout.admin_password.write_text("x")
    monkeypatch.setenv("HERDSMAN_CONFIG_DIR", str(layout.root / "settings"))
    monkeypatch.setattr(
        "services.cli.hub.Hub.fetch", lambda *_args, **_more: (_ for _ in ()).throw(errors.Timeout("reached the hub"))
    )
    # As if the first of them had succeeded.
    known = load_settings()
    known.put(Server("hub", "https://127.0.0.1:8443", user="admin", token="hm_aaaaaaaaaa_secret"))
    known.save()
    layout.ca_file.write_bytes(ca.generate_ca("x", datetime.now(UTC)).certificate)
    for line in next_commands(layout, "https://127.0.0.1:8443", "admin"):
        words = shlex.split(line)
        start = words.index("services.cli") + 1 if "services.cli" in words else 1
        assert run(words[start:]) == EXIT_TIMEOUT, line


def test_the_greeting_tells_where_everything_is_and_never_the_password(layout):
    layout.admin_password.write_text("open sesame")
    text = greet(layout, "https://127.0.0.1:8443", "admin", "local", 2.34)
    for expected in (
        "hub ready in 2.3 s",
        "https://127.0.0.1:8443",
        str(layout.ca_file),
        str(layout.admin_password),
        "cluster list",
    ):
        assert expected in text
    assert "open sesame" not in text


def test_progress_without_a_terminal_is_plain_lines_for_what_takes_long(capsys, monkeypatch):
    moment = [100.0]
    monkeypatch.setattr("services.cli.up.progress.time.monotonic", lambda: moment[0])
    progress = Progress(terminal=False)
    for second in (0.0, 0.5, 1.5, 2.0, 7.0):
        moment[0] = 100.0 + second
        progress.busy("nats", "nats: starting")
    progress.done("nats", "nats is there")
    progress.busy("quick", "never shown")
    progress.done("quick", "never shown")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["nats: starting (2 s)", "nats: starting (7 s)", "nats is there (7.0 s)"]


async def test_a_wait_for_nothing_is_over_at_once(layout):
    assert await asyncio.wait_for(end_leftovers(layout), 1) == []


def test_progress_goes_on_when_its_output_is_on_a_full_disk(monkeypatch):
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 - a device
        stream = io.TextIOWrapper(full, write_through=True)
        with pytest.raises(OSError, match="No space left"):
            stream.write("this device is always full")
        monkeypatch.setattr(sys, "stderr", stream)
        Progress(terminal=False).say("the disk is full")
        monkeypatch.undo()
        stream.detach()
