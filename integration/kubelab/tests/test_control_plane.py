"""A plain cluster: starts in seconds, keeps its data, survives the death of its processes, leaves nothing running."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from integration.kubelab.build import kubernetes_version
from integration.kubelab.cluster import _REPOSITORY, Cluster, running
from integration.kubelab.kubectl import kubectl
from integration.kubelab.paths import Layout
from libs.common.errors import NotFound, Timeout
from libs.common.processes import ProcessId, wait_gone

pytestmark = [pytest.mark.kubelab, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster(state_dir: Path) -> AsyncIterator[Cluster]:
    cluster = await Cluster.up("plain", state_dir)
    yield cluster
    await cluster.down(delete=True)


async def wait_for_version(cluster: Cluster) -> None:
    deadline = time.monotonic() + 30
    while (await kubectl(cluster.kubeconfig, "get", "--raw", "/readyz")).code != 0:
        assert time.monotonic() < deadline, "the API server did not come back"
        await asyncio.sleep(0.1)


async def test_server_tells_the_pinned_version(cluster: Cluster) -> None:
    answer = await kubectl(cluster.kubeconfig, "version", "-o", "json")
    assert json.loads(answer.out)["serverVersion"]["gitVersion"] == kubernetes_version()


async def test_controllers_fill_and_empty_a_namespace(cluster: Cluster) -> None:
    assert (await kubectl(cluster.kubeconfig, "create", "namespace", "filled")).code == 0
    assert (await kubectl(cluster.kubeconfig, "-n", "filled", "create", "configmap", "c")).code == 0
    waiting = "--for=create", "serviceaccount/default", "--timeout=20s"
    assert (await kubectl(cluster.kubeconfig, "-n", "filled", "wait", *waiting)).code == 0
    assert (await kubectl(cluster.kubeconfig, "delete", "namespace", "filled", "--timeout=40s")).code == 0
    assert "NotFound" in (await kubectl(cluster.kubeconfig, "get", "namespace", "filled")).err


async def test_garbage_collector_removes_what_lost_its_owner(cluster: Cluster) -> None:
    await kubectl(cluster.kubeconfig, "create", "configmap", "owner")
    uid = (await kubectl(cluster.kubeconfig, "get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")).out
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "owned",
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}],
        },
    }
    applied = await kubectl(cluster.kubeconfig, "create", "-f", "-", stdin=json.dumps(owned).encode())
    assert applied.code == 0, applied.err
    await kubectl(cluster.kubeconfig, "delete", "configmap", "owner")
    gone = await kubectl(cluster.kubeconfig, "wait", "--for=delete", "configmap/owned", "--timeout=40s")
    assert gone.code == 0, gone.err


async def test_nobody_without_certificate_gets_in(cluster: Cluster) -> None:
    nobody = await kubectl(cluster.kubeconfig, "--as", "stranger", "get", "secrets")
    assert "Forbidden" in nobody.err


@pytest.mark.parametrize("component", ["kube-apiserver", "etcd", "kube-controller-manager"])
async def test_killed_component_is_started_again_and_loses_nothing(cluster: Cluster, component: str) -> None:
    name = f"before-{component}"
    assert (await kubectl(cluster.kubeconfig, "create", "configmap", name)).code == 0
    dead = await cluster.kill(component)
    assert await cluster.wait_restarted(component, dead) != dead
    await wait_for_version(cluster)
    assert (await kubectl(cluster.kubeconfig, "get", "configmap", name)).code == 0


async def test_ordered_restart_gives_another_process(cluster: Cluster) -> None:
    before = cluster.pids()["kube-controller-manager"]
    assert await cluster.restart("kube-controller-manager") != before


async def test_unknown_component_is_named_in_the_error(cluster: Cluster) -> None:
    with pytest.raises(NotFound, match=r"runs no kubelet; it runs .*etcd"):
        await cluster.kill("kubelet")


async def test_running_cluster_is_joined_not_started_twice(cluster: Cluster, state_dir: Path) -> None:
    joined = await Cluster.up("plain", state_dir)
    assert joined.pids() == cluster.pids()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "integration.kubelab", "run", "plain", "--dir", str(state_dir), cwd=_REPOSITORY,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"is running already" in errors


async def test_second_start_is_quick_and_finds_the_data_and_the_address(state_dir: Path) -> None:
    first = await Cluster.up("again", state_dir, minimal=True)
    assert (await kubectl(first.kubeconfig, "create", "namespace", "kept")).code == 0
    kubeconfig = first.kubeconfig.read_text()
    await first.down()
    started = time.monotonic()
    second = await Cluster.up("again", state_dir, minimal=True)
    took_s = time.monotonic() - started
    try:
        assert (await kubectl(second.kubeconfig, "get", "namespace", "kept")).code == 0
        assert second.kubeconfig.read_text() == kubeconfig
        assert took_s < 15, "three seconds on a quiet machine; a crowded one may take longer, never this long"
    finally:
        await second.down(delete=True)
    assert not second.layout.root.exists()


async def test_everything_ends_with_a_killed_supervisor_and_can_start_again(state_dir: Path) -> None:
    cluster = await Cluster.up("orphan", state_dir, minimal=True)
    state = running(cluster.layout)
    assert state is not None
    identities = [ProcessId.from_json(entry) for entry in state["processes"].values()]
    os.kill(state["supervisor"]["pid"], signal.SIGKILL)
    assert not await wait_gone([identity for identity in identities if identity], 5.0)
    await cluster.down()
    again = await Cluster.up("orphan", state_dir, minimal=True)
    await again.down(delete=True)


async def command(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "integration.kubelab", *arguments, cwd=_REPOSITORY, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_command_starts_a_cluster_that_lives_on_and_ends_it(state_dir: Path, tmp_path: Path) -> None:
    place = ("--dir", str(state_dir))
    taken_away = tmp_path / "config"
    code, output = await command("up", "cli", "--minimal", "-o", "json", "--kubeconfig-out", str(taken_away), *place)
    assert code == 0
    told = json.loads(output)
    assert told["kubeconfig"] == str(taken_away)
    assert set(told["pids"]) == {"etcd", "kube-apiserver"}
    assert taken_away.stat().st_mode & 0o777 == 0o600
    assert (await kubectl(taken_away, "get", "namespaces")).code == 0
    rows = {row["name"]: row for row in json.loads((await command("list", "-o", "json", *place))[1])}
    assert rows["cli"]["ready"]
    assert (await command("down", "cli", "--delete", *place))[0] == 0
    assert not [name for name, pid in told["pids"].items() if ProcessId.current(pid)]
    assert "cli" not in (await command("list", *place))[1]


async def test_failed_start_says_why_and_leaves_nothing_running(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = state_dir / "broken-programs"
    broken.mkdir()
    for name in ("etcd", "kube-apiserver"):
        (broken / name).write_text("#!/bin/sh\necho this etcd is broken >&2\nsleep 0.1\nexit 1\n")
        (broken / name).chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(broken))
    with pytest.raises(Timeout, match="was not ready within 3 s"):
        await Cluster.up("broken", state_dir, minimal=True, timeout_s=3)
    assert running(Layout.of("broken", state_dir)) is None
