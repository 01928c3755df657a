"""The local cluster of `herdsman up`, with small programs in place of Kubelab and the agent, and a double of the hub's API.

The doubles do not imitate Kubernetes or the hub: that is tested with the real ones. Here it is about what is started when,
what is remembered, and what a person is told.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

import pytest

from libs.common import errors
from services.cli.up.layout import Layout
from services.cli.up.local import LocalCluster, LocalOptions
from services.cli.up.logs import Logs
from services.cli.up.progress import Progress
from services.cli.up.supervisor import Supervisor
from tests.cli.test_supervisor import Notes

KUBELAB = """
import json, pathlib, sys, time
folder = pathlib.Path(__file__).parent
if sys.argv[1:3] == ["build", "--check"]:
    print("it is there" if (folder / "built").exists() else "nothing is built")
    sys.exit(0 if (folder / "built").exists() else 3)
if sys.argv[1] == "build":
    print("compiling")
    (folder / "built").touch()
    sys.exit(0)
if sys.argv[1] == "doctor":
    sys.exit(3)
assert sys.argv[1] == "run", sys.argv
print(json.dumps({"kubeconfig": str(folder / "kubeconfig")}), flush=True)
time.sleep(600)
"""
AGENT = """
import pathlib, sys, time
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
state = pathlib.Path(words["--state-dir"])
state.mkdir(exist_ok=True)
identity = state / "identity"
if not identity.exists():
    fresh = state / "fresh"
    fresh.write_text(pathlib.Path(words["--registration-token-file"]).read_text())
    fresh.rename(identity)
detach = pathlib.Path(__file__).parent / "detach"
while not detach.exists():
    time.sleep(0.02)
identity.unlink()
"""


class Hub:
    """In place of `Importer`."""

    def __init__(self) -> None:
        self.registered: list[str] = []
        self.error: errors.HerdsmanError | None = None

    async def register(self, name):
        if self.error:
            raise self.error
        self.registered.append(name)
        return f"token-{len(self.registered)}"

    async def wait_active(self, name, progress):
        return "is active"


@pytest.fixture
def layout(tmp_path) -> Layout:
    made = Layout(tmp_path / "data")
    made.make()
    return made


@pytest.fixture
async def supervisor(layout):
    made = Supervisor(layout.root, Logs(layout.logs), Notes())
    yield made
    await made.stop()


@pytest.fixture
def local(layout, supervisor, tmp_path, capsys):
    """Makes a LocalCluster as a start of `herdsman up` does; `told` is what a person has read since."""
    (tmp_path / "kubelab.py").write_text(KUBELAB)
    (tmp_path / "agent.py").write_text(AGENT)

    class Start:
        hub = Hub()

        def __call__(self, *, insist=False):
            options = LocalOptions(
                "local", insist, "https://127.0.0.1:1", "info", dict(os.environ),
                kubelab=(sys.executable, "-I", str(tmp_path / "kubelab.py")), agent=(sys.executable, "-I", str(tmp_path / "agent.py")),
            )  # fmt: skip
            return LocalCluster(layout, options, supervisor, self.hub, Progress(terminal=False))

        def told(self):
            return capsys.readouterr().err

    return Start()


async def _until_active(local, task) -> str:
    told = ""
    while "is active" not in told:
        assert not task.done(), told
        await asyncio.sleep(0.02)
        told += local.told()
    return told


async def test_it_is_started_imported_and_said(local, supervisor, tmp_path, layout, eventually):
    (tmp_path / "built").touch()
    task = asyncio.create_task(local().run())
    await _until_active(local, task)
    assert set(supervisor.running) == {"kubelab", "agent"}
    await eventually(lambda: (layout.agent / "local" / "identity").exists())
    assert (layout.agent / "local" / "identity").read_text() == "token-1"
    assert (layout.agent / "local.token").stat().st_mode & 0o777 == 0o600
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_next_start_registers_nothing_again(local, supervisor, tmp_path, layout, eventually):
    (tmp_path / "built").touch()
    for _ in range(2):
        task = asyncio.create_task(local().run())
        await _until_active(local, task)
        await eventually(lambda: (layout.agent / "local" / "identity").exists())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await supervisor.stop()
    assert local.hub.registered == ["local"]


async def test_a_cluster_that_was_deleted_from_the_hub_stays_away_until_asked_for(
    local, supervisor, tmp_path, layout, eventually
):
    (tmp_path / "built").touch()
    task = asyncio.create_task(local().run())
    await _until_active(local, task)
    await eventually(lambda: (layout.agent / "local" / "identity").exists())
    (tmp_path / "detach").touch()
    await asyncio.wait_for(task, 10)
    assert "was deleted from the hub" in local.told()
    assert supervisor.running == {}
    (tmp_path / "detach").unlink()

    await asyncio.wait_for(local().run(), 5)
    assert "herdsman up --local-cluster local" in local.told()
    assert supervisor.running == {}

    again = asyncio.create_task(local(insist=True).run())
    await _until_active(local, again)
    assert local.hub.registered == ["local", "local"]
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


async def test_without_programs_it_says_how_to_import_ones_own_and_builds_them(local, supervisor, tmp_path):
    task = asyncio.create_task(local().run())
    told = await _until_active(local, task)
    assert (tmp_path / "built").exists()
    assert "nothing is built" in told
    assert "herdsman cluster import" in told
    assert "in the background" in told
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_hub_that_refuses_is_told_in_a_sentence_and_nothing_is_remembered(local, tmp_path, layout):
    (tmp_path / "built").touch()
    local.hub.error = errors.Unauthenticated("the password of admin was changed")
    await local().run()
    told = local.told()
    assert "the password of admin was changed" in told
    assert "the hub runs without it" in told
    assert not layout.local_record.exists()


async def test_what_is_remembered_is_readable(local, tmp_path, layout, supervisor):
    (tmp_path / "built").touch()
    task = asyncio.create_task(local().run())
    await _until_active(local, task)
    assert json.loads(layout.local_record.read_text()) == {"local": "imported"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_agent_that_somebody_stopped_is_started_again(local, tmp_path, layout, supervisor, eventually):
    (tmp_path / "built").touch()
    (tmp_path / "agent.py").write_text("import signal\nsignal.signal(signal.SIGTERM, lambda *_: exit(0))\n" + AGENT)
    task = asyncio.create_task(local().run())
    await _until_active(local, task)
    await eventually(lambda: (layout.agent / "local" / "identity").exists())
    first = supervisor.running["agent"]
    first.send(signal.SIGTERM)
    await eventually(lambda: supervisor.running.get("agent", first) != first)
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_kubernetes_that_cannot_start_is_told_and_not_tried_for_ever(local, tmp_path, supervisor):
    (tmp_path / "built").touch()
    (tmp_path / "kubelab.py").write_text(
        KUBELAB.replace("assert sys.argv[1]", "sys.exit('no room for etcd')\nassert sys.argv[1]")
    )
    await local().run()
    assert "no room for etcd" in local.told()
    assert supervisor.running == {}
