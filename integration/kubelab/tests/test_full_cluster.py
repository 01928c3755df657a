"""A full cluster: pods run, every kubectl stream works both ways of carrying it, faults heal, nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from integration.kubelab.cgroups import ClusterGroups, hierarchies
from integration.kubelab.cluster import Cluster, running
from integration.kubelab.images import BUSYBOX_IMAGE, find_busybox, image_from_root
from integration.kubelab.kubectl import Answer, find_kubectl, kubectl
from integration.kubelab.node import link_name
from integration.kubelab.paths import Layout
from libs.common.processes import ProcessId

pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

CARRIERS = {"websocket": "true", "spdy": "false"}
WEB = "echo started; mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 8080 -h /www"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cluster(state_dir: Path) -> AsyncIterator[Cluster]:
    cluster = await Cluster.up("whole", state_dir, full=True)
    try:
        await run_pod(cluster, "web", WEB)
        yield cluster
    finally:
        await cluster.down(delete=True)


async def run_pod(cluster: Cluster, name: str, script: str, *options: str, image: str = BUSYBOX_IMAGE) -> None:
    started = await kubectl(
        cluster.kubeconfig,
        "run",
        name,
        f"--image={image}",
        "--image-pull-policy=Never",
        *options,
        "--",
        "sh",
        "-c",
        script,
    )
    assert started.code == 0, started.err
    await wait_ready(cluster, name)


async def wait_ready(cluster: Cluster, name: str) -> None:
    ready = await kubectl(
        cluster.kubeconfig, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s", timeout_s=90
    )
    assert ready.code == 0, ready.err + (await kubectl(cluster.kubeconfig, "describe", "pod", name)).out


async def execute(cluster: Cluster, pod: str, script: str, carrier: str = "websocket", stdin: bytes = b"") -> Answer:
    environment = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": CARRIERS[carrier]}
    return await kubectl(
        cluster.kubeconfig, "exec", "-i", pod, "--", "sh", "-c", script, environment=environment, stdin=stdin
    )


async def execute_until_works(cluster: Cluster, pod: str, script: str) -> Answer:
    """After a start the API server still shows pods as they were; they are there when a command in them works."""
    deadline = time.monotonic() + 60
    while (answer := await execute(cluster, pod, script)).code != 0:
        assert time.monotonic() < deadline, answer.err
        await asyncio.sleep(0.3)
    return answer


async def test_logs_show_what_the_pod_said(cluster: Cluster) -> None:
    assert (await kubectl(cluster.kubeconfig, "logs", "web")).out == "started\n"


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("code", [0, 7])
async def test_exec_brings_back_both_outputs_and_the_exit_code(cluster: Cluster, carrier: str, code: int) -> None:
    answer = await execute(cluster, "web", f"echo out; echo err >&2; exit {code}", carrier)
    assert (answer.code, answer.out) == (code, "out\n")
    assert answer.err.startswith("err\n")


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_exec_carries_a_megabyte_in_and_back(cluster: Cluster, carrier: str) -> None:
    sent = os.urandom(512 * 1024).hex().encode()
    answer = await execute(cluster, "web", "cat", carrier, sent)
    assert answer.out.encode() == sent


async def test_cp_there_and_back_keeps_the_bytes(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(os.urandom(300_000))
    there = await kubectl(cluster.kubeconfig, "cp", str(tmp_path / "there"), "web:/tmp/file")
    assert there.code == 0, there.err
    back = await kubectl(cluster.kubeconfig, "cp", "web:/tmp/file", str(tmp_path / "back"))
    assert back.code == 0, back.err
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_port_forward_reaches_the_pods_port(cluster: Cluster, carrier: str) -> None:
    process = await asyncio.create_subprocess_exec(
        find_kubectl(), f"--kubeconfig={cluster.kubeconfig}", "port-forward", "pod/web", ":8080",
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "KUBECTL_PORT_FORWARD_WEBSOCKETS": CARRIERS[carrier]},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            announced = re.search(rb"127\.0\.0\.1:(\d+)", await process.stdout.readline())
            assert announced is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", int(announced[1]))
            writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
        assert answer.endswith(b"page\n")
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_attach_speaks_with_the_main_process(cluster: Cluster, carrier: str) -> None:
    name = f"listener-{carrier}"
    container = {
        "name": "main",
        "image": BUSYBOX_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", "read line; echo heard $line"],
        "stdin": True,
        "stdinOnce": True,
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    created = await kubectl(cluster.kubeconfig, "create", "-f", "-", stdin=json.dumps(pod).encode())
    assert created.code == 0, created.err
    await wait_ready(cluster, name)
    environment = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": CARRIERS[carrier]}
    answer = await kubectl(cluster.kubeconfig, "attach", "-i", name, stdin=b"word\n", environment=environment)
    assert "heard word" in answer.out
    assert answer.code == 0, answer.err


async def test_pod_reaches_the_api_through_its_service_account(cluster: Cluster) -> None:
    script = (
        "printf 'GET /version HTTP/1.0\\r\\n\\r\\n' | "
        "timeout 10 nc $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT | head -c 100; "
        "ls /var/run/secrets/kubernetes.io/serviceaccount"
    )
    answer = await execute(cluster, "web", script)
    assert "HTTP/1.0 400" in answer.out, "the API server speaks TLS and says so to a plain client"
    assert "token" in answer.out


async def test_service_address_leads_to_its_pod(cluster: Cluster) -> None:
    exposed = await kubectl(
        cluster.kubeconfig, "expose", "pod", "web", "--port=80", "--target-port=8080", "--name=site"
    )
    assert exposed.code == 0, exposed.err
    address = (await kubectl(cluster.kubeconfig, "get", "service", "site", "-o", "jsonpath={.spec.clusterIP}")).out
    await run_pod(cluster, "visitor", "sleep 3600")
    for pod in ("visitor", "web"):
        answer = await execute_until_works(cluster, pod, f"timeout 5 wget -q -O - http://{address}/")
        assert answer.out == "page\n"


async def test_pod_reaches_a_listener_on_this_machine(cluster: Cluster) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hub here\n")
        writer.close()

    server = await asyncio.start_server(greet, cluster.host_address, 0)
    try:
        port = server.sockets[0].getsockname()[1]
        answer = await execute(cluster, "web", f"nc -w 5 {cluster.host_address} {port} </dev/null")
        assert answer.out == "hub here\n"
    finally:
        server.close()


async def test_image_of_our_own_making_runs(cluster: Cluster, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(find_busybox(), root / "bin" / "busybox")
    (root / "greeting").write_text("made here\n")
    name = "herdsman.dev/test/greeter:1"
    tarball = image_from_root(root, name, ["/bin/busybox", "cat", "/greeting"], user="1000", cache=tmp_path / "cache")
    assert name in await cluster.import_image(tarball)
    await kubectl(cluster.kubeconfig, "run", "greeter", f"--image={name}", "--restart=Never")
    done = await kubectl(
        cluster.kubeconfig, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/greeter", "--timeout=60s"
    )
    assert done.code == 0, done.err
    assert (await kubectl(cluster.kubeconfig, "logs", "greeter")).out == "made here\n"


async def test_pod_lives_on_while_containerd_and_kubelet_are_killed(cluster: Cluster) -> None:
    await execute(cluster, "web", "echo mark > /tmp/mark")
    for component in ("containerd", "kubelet"):
        await cluster.wait_restarted(component, await cluster.kill(component))
    assert (await execute_until_works(cluster, "web", "cat /tmp/mark")).out == "mark\n"


async def test_two_full_clusters_live_side_by_side(cluster: Cluster, state_dir: Path) -> None:
    other = await Cluster.up("other", state_dir, full=True)
    try:
        await run_pod(other, "web", WEB)
        nodes = [
            json.loads((await kubectl(c.kubeconfig, "get", "nodes", "-o", "json")).out)["items"]
            for c in (cluster, other)
        ]
        assert [[node["metadata"]["name"] for node in items] for items in nodes] == [["whole"], ["other"]]
        assert (await execute(cluster, "web", "hostname")).code == 0
        assert (await execute(other, "web", "hostname")).code == 0
    finally:
        await other.down(delete=True)
    assert_nothing_left(other.layout)
    assert (await execute(cluster, "web", "echo still here")).out == "still here\n"


async def test_killed_supervisor_leaves_a_node_that_the_next_start_clears_away(cluster: Cluster) -> None:
    state = running(cluster.layout)
    assert state is not None
    before = ClusterGroups(cluster.layout.instance_id).members()
    os.kill(state["supervisor"]["pid"], signal.SIGKILL)
    assert cluster._process is not None
    cluster._process.wait()
    again = await Cluster.up(cluster.name, cluster.layout.root.parent, full=True)
    cluster._process = again._process  # the fixture and the next test go on with the new one
    assert not before & ClusterGroups(cluster.layout.instance_id).members()
    assert (await execute_until_works(again, "web", "cat /www/index.html")).out == "page\n"


async def test_down_leaves_no_process_mount_link_or_group(cluster: Cluster) -> None:
    members = ClusterGroups(cluster.layout.instance_id).members()
    assert members
    await cluster.down(delete=True)
    assert not [pid for pid in members if ProcessId.current(pid)]
    assert_nothing_left(cluster.layout)


def assert_nothing_left(layout: Layout) -> None:
    assert str(layout.root) not in Path("/proc/self/mountinfo").read_text()
    assert not Path(f"/sys/class/net/{link_name(layout)}").exists()
    groups = ClusterGroups(layout.instance_id)
    assert not [point for point in hierarchies().values() if (point / groups.name).exists()]
    assert not layout.root.exists()
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command_line.read_bytes()
        except OSError:
            continue  # ended while the list was read
        assert str(layout.root).encode() not in words
