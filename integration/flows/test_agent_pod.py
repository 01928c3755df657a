"""A cluster comes in by the printed command, is used through the hub, and leaves without a trace: the agent is a pod.

The hub is what `herdsman up` starts, listening where pods of the cluster reach this machine; the person's side is the real
`herdsman` and kubectl.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from integration.harness.hub import run_program
from integration.kubelab import doctor
from integration.kubelab.agent_image import AGENT_IMAGE, agent_image
from integration.kubelab.cluster import Cluster
from integration.kubelab.kubectl import Answer, find_kubectl, kubectl

pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
HERDSMAN = Path(sys.executable).with_name("herdsman")
NAME = "branch"
SPACE = "herdsman-system"
AGENT_MEMORY_KB = 60 * 1024
OURS = "app.kubernetes.io/managed-by=herdsman"


@dataclass(frozen=True, slots=True)
class World:
    """A full cluster, a hub beside it, and a person signed in there. `before` is every object as it was at first."""

    cluster: Cluster
    hub_url: str
    ca_file: Path
    environment: dict[str, str]
    through_hub: Path
    before: frozenset[str]

    async def herdsman(self, *arguments: str, timeout_s: float = 120.0) -> Answer:
        return await run_program(HERDSMAN, *arguments, environment=self.environment, timeout_s=timeout_s)

    async def kube(self, *arguments: str, timeout_s: float = 60.0) -> Answer:
        """kubectl as the cluster's administrator, past the hub."""
        return await kubectl(self.cluster.kubeconfig, *arguments, timeout_s=timeout_s)


async def eventually(look: Callable[[], Awaitable[object]], what: str, timeout_s: float = 60.0) -> None:
    """Until `look` finds nothing that is still missing or still there."""
    deadline = time.monotonic() + timeout_s
    while wrong := await look():
        assert time.monotonic() < deadline, f"{what} is not so after {timeout_s:.0f} s: {wrong}"
        await asyncio.sleep(0.3)


async def list_everything(cluster: Cluster) -> dict[str, dict[str, str]]:
    """Labels of every object of every kind that can be listed, by `kind/namespace/name`; passing events left out."""
    kinds = await kubectl(cluster.kubeconfig, "api-resources", "--verbs=list", "-o", "name", "--cached=false")
    assert kinds.code == 0, kinds.err
    listed = [kind for kind in kinds.out.split() if kind not in ("events", "events.events.k8s.io", "componentstatuses")]
    answer = await kubectl(cluster.kubeconfig, "get", ",".join(listed), "--all-namespaces", "-o", "json")
    assert answer.code == 0, answer.err
    found = {}
    for item in json.loads(answer.out)["items"]:
        metadata = item["metadata"]
        found[f"{item['kind']}/{metadata.get('namespace', '')}/{metadata['name']}"] = metadata.get("labels") or {}
    return found


async def lacks_lease(cluster: Cluster) -> list[str]:
    """The kubelet makes its node's Lease some seconds after the node is Ready: a listing before that is not the whole."""
    answer = await kubectl(cluster.kubeconfig, "-n", "kube-node-lease", "get", "leases", "-o", "name")
    return [] if answer.out.strip() else ["no Lease yet"]


def traces(objects: dict[str, dict[str, str]]) -> list[str]:
    """What is ours by either label, or by name or place."""
    key, _, value = OURS.partition("=")
    return sorted(
        name
        for name, labels in objects.items()
        if labels.get(key) == value or "management.herdsman.dev/part" in labels or "herdsman" in name.split("/", 1)[1]
    )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world() -> AsyncIterator[World]:
    for finding in doctor.examine():
        if not finding.ok:
            pytest.skip(f"{finding.what}: {finding.detail}")
    with tempfile.TemporaryDirectory(prefix="flow-agent-pod-") as name:
        folder = Path(name)
        cluster = await Cluster.up("podded", folder / "clusters", full=True)
        try:
            await cluster.import_image(await asyncio.to_thread(agent_image))
            await eventually(lambda: lacks_lease(cluster), "the node's own Lease is there")
            before = frozenset(await list_everything(cluster))
            hub, url = await start_hub(cluster.host_address, folder)
            try:
                yield await sign_in(cluster, url, folder, before)
            finally:
                await stop_hub(hub)
        finally:
            await cluster.down(delete=True)


async def start_hub(host: str, folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    with socket.create_server((host, 0)) as probe:
        port = probe.getsockname()[1]
    output = folder / "hub.out"
    arguments = ["up", "--host", host, "--port", str(port), "--no-local-cluster", "--data-dir", str(folder / "hub")]
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            HERDSMAN,
            *arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=own_environment(),
        )
    deadline = time.monotonic() + 60
    while "hub ready" not in output.read_text():
        if process.returncode is not None or time.monotonic() > deadline:
            await stop_hub(process)
            pytest.fail(f"the hub did not start:\n{output.read_text()}")
        await asyncio.sleep(0.1)
    return process, f"https://{host}:{port}"


async def stop_hub(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    async with asyncio.timeout(60):
        await process.wait()


def own_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("HERDSMAN_")}


async def sign_in(cluster: Cluster, url: str, folder: Path, before: frozenset[str]) -> World:
    environment = {
        **own_environment(),
        "HERDSMAN_CONFIG_DIR": str(folder / "person"),
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": f"{find_kubectl().parent}{os.pathsep}{os.environ['PATH']}",
    }
    hub = folder / "hub"
    world = World(cluster, url, hub / "pki" / "ca.crt", environment, folder / "through-hub" / "config", before)
    signed_in = await world.herdsman(
        "login", url, "--ca-file", str(world.ca_file), "--user", "admin", "--password-file", str(hub / "admin-password")
    )
    assert signed_in.code == 0, signed_in.err
    return world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def imported(world: World) -> World:
    """The cluster is in the hub, by nothing but the printed command, and the person has a kubeconfig for it."""
    assert not traces(await list_everything(world.cluster))
    printed = await world.herdsman("cluster", "import", NAME)
    assert printed.code == 0, printed.err
    assert shutil.which("curl"), "the printed command needs curl"
    applied = await run_program(
        "bash", "-o", "pipefail", "-c", printed.out, environment=world.environment, timeout_s=60
    )
    assert applied.code == 0, applied.err

    async def not_active() -> str:
        shown = await world.herdsman("cluster", "show", NAME, "-o", "json")
        status = json.loads(shown.out)["status"]
        if status.get("phase") == "Active":
            return ""
        logs = await world.kube("logs", "-n", SPACE, "deployment/herdsman-agent", "--tail=5")
        pods = await world.kube("get", "pods", "-n", SPACE)
        return f"{json.dumps(status)}\n{pods.out}{logs.out}{logs.err}"

    await eventually(not_active, f'cluster "{NAME}" is Active')
    world.through_hub.parent.mkdir()
    written = await world.herdsman("kubeconfig", NAME, "--static", "--output", str(world.through_hub))
    assert written.code == 0, written.err
    return world


async def agent_pods(world: World) -> list[dict[str, Any]]:
    answer = await world.kube("get", "pods", "-n", SPACE, "-o", "json")
    assert answer.code == 0, answer.err
    return [item for item in json.loads(answer.out)["items"] if not item["metadata"].get("deletionTimestamp")]


async def test_one_agent_pod_of_the_local_image_runs_and_never_fell(imported: World) -> None:
    (pod,) = await agent_pods(imported)
    assert pod["status"]["phase"] == "Running"
    (container,) = pod["status"]["containerStatuses"]
    assert container["restartCount"] == 0
    assert container["image"] == AGENT_IMAGE


async def test_agents_namespace_meets_the_strictest_pod_security(imported: World) -> None:
    """The API server itself judges: it warns of pods there that the level would refuse."""
    enforce = "pod-security.kubernetes.io/enforce=restricted"
    for space, warned in ((SPACE, False), ("default", True)):
        if warned:
            lax = await imported.kube("run", "lax", f"--image={AGENT_IMAGE}", "--command", "--", "python", "-c", "0")
            assert lax.code == 0, lax.err
        judged = await imported.kube("label", "namespace", space, enforce, "--dry-run=server", "--overwrite")
        assert judged.code == 0, judged.err
        assert ("violate" in judged.err) is warned, judged.err
    await imported.kube("delete", "pod", "lax", "--now")


async def test_agent_in_its_pod_stays_within_its_memory(imported: World) -> None:
    read = "print(dict(l.split(':', 1) for l in open('/proc/1/status').read().splitlines())['VmRSS'].split()[0])"
    answer = await imported.kube("exec", "-n", SPACE, "deployment/herdsman-agent", "--", "python", "-S", "-c", read)
    assert answer.code == 0, answer.err
    assert 10_000 < int(answer.out) <= AGENT_MEMORY_KB


async def test_kubectl_sees_the_same_pods_through_the_hub(imported: World) -> None:
    query = ("get", "pods", "--all-namespaces", "-o", "name")
    there, through = await imported.kube(*query), await kubectl(imported.through_hub, *query)
    assert through.code == 0, through.err
    assert through.out == there.out
    assert "pod/herdsman-agent-" in through.out


async def test_person_is_known_by_name_in_the_cluster(imported: World) -> None:
    answer = await kubectl(imported.through_hub, "auth", "whoami", "-o", "json")
    assert answer.code == 0, answer.err
    user = json.loads(answer.out)["status"]["userInfo"]
    assert user["username"] == "herdsman:admin"
    assert [g for g in user["groups"] if not g.startswith("herdsman:")] == ["system:authenticated"]


async def test_projects_are_kept_by_the_rights_of_the_manifest_alone(imported: World, tmp_path: Path) -> None:
    """Elsewhere agents of tests have an administrator's kubeconfig, which hides a right that is missing."""
    config = tmp_path / "config"
    assert (await imported.herdsman("kubeconfig", "--static", "--output", str(config))).code == 0
    project = {
        "apiVersion": "management.herdsman.dev/v1",
        "kind": "Project",
        "metadata": {"name": "podded"},
        "spec": {
            "namespaces": [{"cluster": NAME, "namespace": "made-by-agent", "create": True, "share": {"pods": "0"}}],
            "quota": {"pods": "0"},
            "containerLimits": {"default": {"memory": "64Mi"}},
            "isolated": True,
            "podSecurity": "baseline",
            "labels": {"team": "podded"},
        },
    }

    async def hub(*arguments: str, **more: Any) -> Answer:
        return await kubectl(config, "--context", "herdsman", *arguments, **more)

    made = await hub("apply", "-f", "-", stdin=json.dumps(project).encode())
    assert made.code == 0, made.err

    async def not_applied() -> str:
        status = json.loads((await hub("get", "cluster", NAME, "-o", "json")).out)["status"]
        part = next((p for p in status["applied"] if p["name"] == "projects/podded"), None)
        return "" if part is not None and not part.get("error") else json.dumps(status)

    await eventually(not_applied, "the project is applied")
    kinds = "resourcequota,limitrange,networkpolicy,rolebinding"
    inside = (await imported.kube("get", kinds, "-n", "made-by-agent", "-o", "name")).out.split()
    assert len([name for name in inside if "herdsman-project" in name]) == 3
    assert any("herdsman:project-owner" in name for name in inside)
    labels = json.loads((await imported.kube("get", "namespace", "made-by-agent", "-o", "json")).out)["metadata"][
        "labels"
    ]
    assert labels["team"] == "podded"
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    refused = await imported.kube("run", "one-too-many", "-n", "made-by-agent", f"--image={AGENT_IMAGE}")
    assert "exceeded quota: herdsman-project" in refused.err

    assert (await hub("delete", "project", "podded")).code == 0

    async def not_released() -> str:
        found = json.loads((await imported.kube("get", "namespace", "made-by-agent", "-o", "json")).out)["metadata"]
        left = (await imported.kube("get", kinds, "-n", "made-by-agent", "-o", "name")).out
        return "" if "team" not in found["labels"] and not left else f"{found} {left}"

    await eventually(not_released, "the namespace is released")
    assert (await imported.kube("delete", "namespace", "made-by-agent")).code == 0


async def test_next_pod_goes_on_with_the_same_identity(imported: World) -> None:
    """The registration token is used up: what the new pod needs lies in a Secret."""
    (before,) = await agent_pods(imported)
    name = before["metadata"]["name"]
    assert (await imported.kube("delete", "pod", "-n", SPACE, name)).code == 0
    rolled = await imported.kube(
        "rollout", "status", "-n", SPACE, "deployment/herdsman-agent", "--timeout=60s", timeout_s=90
    )
    assert rolled.code == 0, rolled.err

    async def not_reached() -> str:
        answer = await kubectl(imported.through_hub, "get", "pods", "-n", SPACE, "-o", "name")
        return "" if answer.code == 0 and name not in answer.out else answer.out + answer.err

    await eventually(not_reached, "the cluster is reached again")
    (after,) = await agent_pods(imported)
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_deleted_cluster_is_left_without_a_trace(imported: World) -> None:
    during = await list_everything(imported.cluster)
    ours = traces(during)
    # The look finds what there is to find, or finding nothing afterwards would prove nothing.
    for kind in ("Namespace", "ClusterRole", "ClusterRoleBinding", "Deployment", "Secret", "ServiceAccount", "Pod"):
        assert any(name.startswith(f"{kind}/") for name in ours), kind
    assert any(name.startswith("ClusterRole//herdsman:") for name in ours)

    gone = await imported.herdsman("cluster", "delete", NAME, "--yes", "--timeout", "90s")
    assert gone.code == 0, gone.err
    assert (await imported.herdsman("cluster", "show", NAME)).code != 0

    async def still_there() -> list[str]:
        return traces(await list_everything(imported.cluster))

    await eventually(still_there, "nothing of ours is left")
    assert "NotFound" in (await imported.kube("get", "namespace", SPACE)).err

    async def not_as_before() -> list[str]:
        return sorted(frozenset(await list_everything(imported.cluster)) ^ imported.before)

    await eventually(not_as_before, "every object is as before the import")
    through = await kubectl(imported.through_hub, "get", "pods", "-A")
    assert through.code != 0
    assert f'"{NAME}"' in through.err, "the hub itself refuses"
