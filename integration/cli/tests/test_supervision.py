"""Faults of processes and signals, on the small hub: whatever is killed, nothing is left and the next start works."""

from __future__ import annotations

import signal
import socket
import time

import pytest

pytestmark = pytest.mark.timeout(120)


def test_it_gets_ready_says_so_and_stops_clean(small_up):
    up = small_up()
    up.wait_ready()
    processes = up.processes()
    assert set(processes) == {"nats", "idle", "auth_proxy"}
    assert all(p.alive for p in processes.values())
    assert up.record()["pid"] == up.process.pid
    assert up.stop() == 0
    assert "stopped" in up.text()
    assert not any(p.alive for p in processes.values())
    assert up.record()["pids"] == {}


@pytest.mark.parametrize("name", ["nats", "idle", "auth_proxy"])
def test_a_killed_program_is_restarted_at_once_and_the_record_follows(small_up, name):
    up = small_up()
    up.wait_ready()
    before = up.processes()[name]
    before.send(signal.SIGKILL)
    took = up.wait_for(lambda: name in up.processes() and up.processes()[name] != before, "a restart", 5)
    assert took < 1.0
    assert f"{name} ended with signal 9" in up.text()
    assert up.stop() == 0


def test_a_killed_supervisor_leaves_no_process(small_up):
    up = small_up()
    up.wait_ready()
    processes = up.processes()
    up.process.kill()
    up.ended()
    up.wait_for(lambda: not any(p.alive for p in processes.values()), "exit of all", 5)


def test_after_a_kill_the_next_start_works_on_the_same_data(small_up):
    first = small_up()
    first.wait_ready()
    url, nats_url = first.record()["url"], first.record()["nats_url"]
    first.process.kill()
    first.ended()
    second = small_up()
    second.wait_ready()
    assert (second.record()["url"], second.record()["nats_url"]) == (url, nats_url)
    assert second.stop() == 0


def test_what_survived_a_killed_supervisor_is_ended_by_the_next(small_up, data_dir):
    """A child that was stopped (SIGSTOP) gets its death signal late or never; it stands for anything that hangs."""
    first = small_up()
    first.wait_ready()
    idle = first.processes()["idle"]
    # Out of reach of the death signal: a process of ours that only the record knows.
    import json
    import subprocess
    import sys

    from libs.common.processes import ProcessId

    orphan = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(600)"])
    try:
        identity = ProcessId.current(orphan.pid)
        assert identity is not None
        first.process.kill()
        first.ended()
        record = data_dir / "herdsman.json"
        document = json.loads(record.read_text())
        document["pids"]["idle"], document["start_ticks"]["idle"] = identity.pid, identity.start_ticks
        record.write_text(json.dumps(document))
        second = small_up()
        second.wait_ready()
        assert "ended what a killed start had left: idle" in second.text()
        assert not identity.alive
        assert not idle.alive
        assert second.stop() == 0
    finally:
        orphan.kill()
        orphan.wait()


def test_a_second_start_in_the_folder_is_refused_and_the_first_runs_on(small_up, port):
    first = small_up()
    first.wait_ready()
    second = small_up()
    assert second.ended() == 1
    assert f"pid {first.process.pid}" in second.text()
    assert all(p.alive for p in first.processes().values())
    assert first.stop() == 0


def test_a_busy_port_is_refused_before_anything_starts(small_up, port, data_dir):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen(1)
        up = small_up()
        assert up.ended() == 1
    assert "--port" in up.text()
    assert not (data_dir / "logs" / "nats.log").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_way_to_ask_it_to_stop_is_heard(small_up, number):
    up = small_up()
    up.wait_ready()
    processes = up.processes()
    up.process.send_signal(number)
    assert up.ended() == 0
    assert not any(p.alive for p in processes.values())


def test_a_stop_in_the_middle_of_the_start_leaves_nothing(small_up):
    up = small_up()
    up.wait_for(lambda: up.processes(), "a first process")
    processes = up.processes()
    began = time.monotonic()
    assert up.stop() == 0
    assert time.monotonic() - began < 10
    assert not any(p.alive for p in processes.values())
