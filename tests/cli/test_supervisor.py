"""The supervisor on small real programs: order, readiness, restarts, stops, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from libs.common import errors
from libs.common.processes import ProcessId
from services.cli.up.logs import Logs
from services.cli.up.programs import Program, json_line
from services.cli.up.supervisor import Supervisor

READY_AFTER = (
    "import sys, time; time.sleep(float(sys.argv[1])); print('{\"ready\": true}', flush=True); time.sleep(600)"
)
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(600)"
)
DIES = "import sys; sys.exit('no such database')"


class Notes:
    """A watcher that writes everything down."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.pauses: list[float] = []

    def started(self, program, process):
        self.lines.append(("started", program.name))

    def waiting(self, program, seconds, reason):
        assert reason

    def ready(self, program, seconds):
        self.lines.append(("ready", program.name))

    def died(self, program, code, words, pause_s):
        self.lines.append(("died", program.name))
        self.pauses.append(pause_s)

    def finished(self, program, code):
        self.lines.append(("finished", program.name))

    def stopping(self, program):
        self.lines.append(("stopping", program.name))

    def names(self, what: str) -> list[str]:
        return [name for kind, name in self.lines if kind == what]


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
async def supervisor(tmp_path, notes):
    made = Supervisor(tmp_path, Logs(tmp_path), notes)
    yield made
    made.hurry()
    await made.stop()


def program(tmp_path: Path, name: str, code: str = READY_AFTER, *arguments: str, stage: int = 0, **more) -> Program:
    out = tmp_path / f"{name}.out"
    defaults = {"ready": json_line(out), "stdout_file": out, "ready_timeout_s": 10.0, "stop_timeout_s": 3.0}
    return Program(name, (sys.executable, "-I", "-c", code, *(arguments or ("0",))), stage, **{**defaults, **more})


async def test_all_are_started_at_once_and_start_returns_when_all_are_ready(tmp_path, supervisor, notes):
    await supervisor.start([program(tmp_path, "slow", READY_AFTER, "0.3"), program(tmp_path, "quick")])
    assert notes.names("started") == ["slow", "quick"]
    assert notes.names("ready") == ["slow", "quick"]
    assert all(process.alive for process in supervisor.running.values())


async def test_stop_goes_backwards_and_leaves_nothing(tmp_path, supervisor, notes):
    await supervisor.start(
        [program(tmp_path, "store"), program(tmp_path, "service", stage=1), program(tmp_path, "door", stage=2)]
    )
    processes = list(supervisor.running.values())
    assert await supervisor.stop() == []
    assert notes.names("stopping") == ["door", "service", "store"]
    assert not any(process.alive for process in processes)
    assert supervisor.running == {}


async def test_the_first_restart_is_immediate_and_the_next_ones_wait(tmp_path, supervisor, notes, eventually):
    await supervisor.start([program(tmp_path, "one")])
    first = supervisor.running["one"]
    began = time.monotonic()
    first.send(signal.SIGKILL)
    await eventually(lambda: "one" in supervisor.running and supervisor.running["one"] != first)
    assert time.monotonic() - began < 0.5
    supervisor.running["one"].send(signal.SIGKILL)
    await eventually(lambda: len(notes.names("started")) == 3)
    assert notes.pauses == [0.0, 0.5]


async def test_a_restart_on_purpose_is_no_death_and_returns_when_it_is_ready_again(tmp_path, supervisor, notes):
    prepared = []
    await supervisor.start([program(tmp_path, "store", before_start=lambda: prepared.append("read through"))])
    before = supervisor.running["store"]
    await supervisor.restart("store")
    after = supervisor.running["store"]
    assert not before.alive
    assert after.alive
    assert after != before
    assert notes.names("died") == []
    assert len(prepared) == 2
    await supervisor.restart("nobody")


async def test_one_that_ignores_sigterm_is_killed_at_its_deadline(tmp_path, supervisor):
    await supervisor.start([program(tmp_path, "stubborn", STUBBORN, stop_timeout_s=0.3)])
    process = supervisor.running["stubborn"]
    began = time.monotonic()
    assert await supervisor.stop() == []
    assert 0.3 <= time.monotonic() - began < 2
    assert not process.alive


async def test_hurry_does_not_wait_for_the_deadline(tmp_path, supervisor):
    await supervisor.start([program(tmp_path, "stubborn", STUBBORN, stop_timeout_s=60.0)])
    process = supervisor.running["stubborn"]
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.1)
    assert process.alive
    supervisor.hurry()
    await asyncio.wait_for(stopping, 3)
    assert not process.alive


async def test_one_that_cannot_start_is_reported_with_its_own_words(tmp_path, supervisor):
    with pytest.raises(errors.Unavailable, match=r"broken cannot start: no such database; see .*broken\.log"):
        await supervisor.start([program(tmp_path, "broken", DIES)])


async def test_one_that_never_gets_ready_is_a_timeout(tmp_path, supervisor):
    with pytest.raises(errors.Timeout, match=r"lazy was not ready within 0 s"):
        await supervisor.start([program(tmp_path, "lazy", READY_AFTER, "60", ready_timeout_s=0.2)])


async def test_a_missing_program_is_a_sentence(tmp_path, supervisor):
    with pytest.raises(errors.Unavailable, match="there is no such file"):
        await supervisor.start([Program("ghost", ("/nonexistent/ghost",), 0)])


async def test_a_final_code_ends_it_for_good(tmp_path, supervisor, notes):
    await supervisor.start(
        [program(tmp_path, "worker", "raise SystemExit(0)", ready=None, is_final=lambda code: code == 0)]
    )
    await asyncio.wait_for(supervisor.wait_over("worker"), 5)
    assert notes.names("finished") == ["worker"]
    assert notes.names("died") == []


async def test_a_stop_during_the_start_leaves_nothing(tmp_path, supervisor, eventually):
    starting = asyncio.create_task(supervisor.start([program(tmp_path, "slow", READY_AFTER, "60", ready_timeout_s=60)]))
    await eventually(lambda: "slow" in supervisor.running)
    process = supervisor.running["slow"]
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await supervisor.stop()
    assert not process.alive


async def test_a_stop_while_one_waits_for_its_restart_leaves_nothing(tmp_path, supervisor, notes, eventually):
    await supervisor.start([program(tmp_path, "one", DIES, ready=None)])
    await eventually(lambda: len(notes.names("died")) >= 2)
    await supervisor.stop()
    started = len(notes.names("started"))
    await asyncio.sleep(1.0)
    assert len(notes.names("started")) == started


async def test_children_die_when_the_supervisor_is_killed(tmp_path, eventually):
    code = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.cli.test_supervisor import Notes, program
        from services.cli.up.logs import Logs
        from services.cli.up.supervisor import Supervisor

        async def main():
            folder = Path({str(tmp_path)!r})
            supervisor = Supervisor(folder, Logs(folder), Notes())
            await supervisor.start([program(folder, "child")])
            print(supervisor.running["child"].pid, flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
    """)
    parent = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        assert parent.stdout is not None
        child = ProcessId.current(int(await asyncio.to_thread(parent.stdout.readline)))
        assert child is not None
        assert child.alive
    finally:
        parent.kill()
        await asyncio.to_thread(parent.wait)
        parent.stdout.close()
    await eventually(lambda: not child.alive)


def test_a_pid_with_another_start_time_is_not_ours():
    me = ProcessId.current(os.getpid())
    assert me is not None
    assert me.alive
    stranger = ProcessId(me.pid, me.start_ticks - 1)
    assert not stranger.alive
    assert stranger.send(signal.SIGKILL) is False


def test_logs_are_rotated_while_a_program_writes_into_them(tmp_path):
    logs = Logs(tmp_path)
    descriptor = logs.open("x")
    try:
        for round_ in range(6):
            os.write(descriptor, f"round {round_} {'x' * 200}\n".encode())
            assert logs.rotate(limit_bytes=100) == ["x"]
        os.write(descriptor, b"last\n")
    finally:
        os.close(descriptor)
    assert logs.path("x").read_text() == "last\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2", "x.log.3"]
    assert (tmp_path / "x.log.1").read_text().startswith("round 5")
    assert (tmp_path / "x.log.3").read_text().startswith("round 3")


def test_last_words_begin_where_the_run_began(tmp_path):
    logs = Logs(tmp_path)
    logs.path("x").write_text("of yesterday\n")
    since = logs.size("x")
    assert logs.last_words("x", since) == ""
    with logs.path("x").open("a") as file:
        file.write("one\n\ntwo\nthree\nfour\n")
    assert logs.last_words("x", since) == "four"
    assert logs.last_words("x", since, lines=3) == "two | three | four"
