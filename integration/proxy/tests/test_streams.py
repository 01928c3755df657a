"""Every stream of kubectl, by WebSocket and by SPDY, through front door, reverse connection and agent into real pods."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path

import pytest

from integration.kubelab.images import BUSYBOX_IMAGE
from integration.kubelab.kubectl import find_kubectl, kubectl
from libs.common.resources.access import RoleTemplateBinding

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(300)]
CARRIERS = {"websocket": "true", "spdy": "false"}


@pytest.fixture
def pod(web):
    return web


def env(carrier):
    return {
        "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": CARRIERS[carrier],
        "KUBECTL_PORT_FORWARD_WEBSOCKETS": CARRIERS[carrier],
    }


async def idle_again(way):
    """Nothing is under way at the agent any more; there is none where the hub reaches the cluster itself."""
    if way.agent is None:
        return
    for _ in range(200):
        if not way.agent.serving and not way.door.host.config.nats_ws_address:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{way.agent.serving} connections still serve")


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("code", [0, 7])
async def test_exec_brings_back_both_outputs_and_the_exit_code(pod, carrier, code):
    answer = await pod.kubectl(
        "exec", "web", "--", "sh", "-c", f"echo out; echo err >&2; exit {code}", environment=env(carrier)
    )
    assert (answer.code, answer.out) == (code, "out\n")
    assert answer.err.startswith("err\n")
    await idle_again(pod)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_exec_carries_megabytes_in_and_back(pod, carrier):
    sent = os.urandom(2 * 1024 * 1024).hex().encode()
    answer = await pod.kubectl("exec", "-i", "web", "--", "cat", stdin=sent, environment=env(carrier))
    assert answer.out.encode() == sent


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_cp_there_and_back_keeps_the_bytes(pod, carrier, tmp_path):
    (tmp_path / "there").write_bytes(os.urandom(5_000_000))
    there = await pod.kubectl("cp", str(tmp_path / "there"), "web:/tmp/file", environment=env(carrier))
    assert there.code == 0, there.err
    back = await pod.kubectl("cp", "web:/tmp/file", str(tmp_path / "back"), environment=env(carrier))
    assert back.code == 0, back.err
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_port_forward_carries_many_connections(pod, carrier):
    process = await asyncio.create_subprocess_exec(
        find_kubectl(), f"--kubeconfig={pod.kubeconfig}", "port-forward", "pod/web", ":8080",
        stdout=asyncio.subprocess.PIPE, env={**os.environ, **env(carrier)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            announced = re.search(rb"127\.0\.0\.1:(\d+)", await process.stdout.readline())
            assert announced is not None

            async def fetch() -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", int(announced[1]))
                writer.write(b"GET /index.html HTTP/1.0\r\n\r\n")
                answer = await reader.read()
                writer.close()
                return answer

            answers = await asyncio.gather(*(fetch() for _ in range(10)))
        assert all(a.endswith(b"page\n") for a in answers)
    finally:
        process.terminate()
        await process.communicate()
    await idle_again(pod)


async def test_logs_follow_shows_lines_as_they_come(pod):
    await kubectl(
        pod.cluster.kubeconfig, "run", "talker", f"--image={BUSYBOX_IMAGE}", "--image-pull-policy=Never", "--",
        "sh", "-c", "while true; do date +%s%N; sleep 0.2; done",
    )  # fmt: skip
    assert (await pod.kubectl("wait", "--for=condition=Ready", "pod/talker", "--timeout=60s", timeout_s=90)).code == 0
    process = await asyncio.create_subprocess_exec(
        find_kubectl(),
        f"--kubeconfig={pod.kubeconfig}",
        "logs",
        "-f",
        "talker",
        "--tail=1",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    for _ in range(10):
        line = await asyncio.wait_for(process.stdout.readline(), 5)
        lag = time.time() - int(line.decode().strip()[:10])
        assert lag < 3
    process.terminate()
    await process.communicate()
    await kubectl(pod.cluster.kubeconfig, "delete", "pod", "talker", "--now", "--wait=false")
    await idle_again(pod)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_taken_role_ends_an_open_exec_within_a_second(pod, carrier, tmp_path):
    from integration.proxy.tests.conftest import write_kubeconfig

    person = await pod.door.user("bob")
    binding = await pod.door.bind(person, "prod", name="bobs")
    config = write_kubeconfig(tmp_path / "bob", pod.door, await pod.door.token(person))
    process = await asyncio.create_subprocess_exec(
        find_kubectl(), f"--kubeconfig={config}", "exec", "web", "--", "sh", "-c", "echo here; sleep 60",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **env(carrier)},
    )  # fmt: skip
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"here\n"
    began = time.monotonic()
    await pod.door.remove(RoleTemplateBinding, binding)
    await asyncio.wait_for(process.wait(), 10)
    assert time.monotonic() - began < 1.5
    if carrier == "websocket":
        # Over SPDY kubectl takes any end of the connection for success; nothing on the way can tell it otherwise.
        assert process.returncode != 0
    await process.communicate()


def count_files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_many_execs_leave_no_connection_and_no_file_behind(pod):
    async def one() -> None:
        answer = await pod.kubectl("exec", "web", "--", "echo", "x")
        assert (answer.code, answer.out) == (0, "x\n")

    await one()
    await idle_again(pod)
    before = count_files()
    for _ in range(5):
        await asyncio.gather(*(one() for _ in range(4)))
    await idle_again(pod)
    assert count_files() <= before + 2 * 4 + 4
