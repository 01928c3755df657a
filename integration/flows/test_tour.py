"""Everyday kubectl against a real cluster through the hub: every verb that people use, pods and streams included."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os

import pytest
import pytest_asyncio

from integration.harness.hub import eventually, free_port
from integration.harness.kubectls import fetch_debian_kubectl
from integration.kubelab.doctor import examine
from integration.kubelab.kubectl import find_kubectl
from libs.common import errors

IMAGE = "herdsman.dev/kubelab/busybox:1"
NAMESPACE = "tour"
TRANSPORTS = [
    pytest.param({}, id="websocket"),
    pytest.param({"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}, id="spdy"),
]
pytestmark = [
    pytest.mark.full,
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.skipif(
        not all(finding.ok for finding in examine()),
        reason="pods need root, containerd and runc: herdsman-kubelab doctor",
    ),
]


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def admin(hub):
    """The administrator with a namespace and a pod that counts and echoes."""
    person = await hub.admin()
    await person.sees("local", "create", "namespace", NAMESPACE)
    await person.sees(
        "local", "-n", NAMESPACE, "run", "echo", f"--image={IMAGE}", "--restart=Never", "--",
        "sh", "-c", "echo begun; mkdir -p /www; echo served > /www/index.html; httpd -p 8080 -h /www; i=0; "
        "while true; do i=$((i+1)); echo line $i; sleep 1; done",
    )  # fmt: skip
    await person.sees("local", "-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/echo", "--timeout=60s")

    async def works() -> bool:
        return (await person.kubectl("local", "-n", NAMESPACE, "exec", "echo", "--", "true")).code == 0

    await eventually(works, 30)
    yield person
    await person.sees("local", "delete", "namespace", NAMESPACE, timeout_s=120)


async def run(admin, *arguments: str, **options):
    return await admin.kubectl("local", "-n", NAMESPACE, *arguments, **options)


async def sees(admin, *arguments: str, **options) -> str:
    return await admin.sees("local", "-n", NAMESPACE, *arguments, **options)


async def test_objects_are_made_read_changed_and_deleted(admin):
    manifest = json.dumps({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "labels": {"app": "a"}}, "data": {"k": "1"},
    }).encode()  # fmt: skip
    await sees(admin, "apply", "-f", "-", stdin=manifest)
    await sees(admin, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest.replace(b'"1"', b'"2"'))
    assert await sees(admin, "get", "configmap", "one", "-o", "jsonpath={.data.k}") == "2"
    assert "one" in await sees(admin, "get", "configmaps", "-l", "app=a", "-o", "wide")
    assert "Name:         one" in await sees(admin, "describe", "configmap", "one")
    editor = {"KUBE_EDITOR": 'sed -i \'s/k: "2"/k: "3"/\''}
    await sees(admin, "edit", "configmap", "one", environment=editor)
    assert await sees(admin, "get", "configmap", "one", "-o", "jsonpath={.data.k}") == "3"
    assert (await run(admin, "diff", "-f", "-", stdin=manifest)).code == 1
    await sees(admin, "delete", "configmap", "one")
    assert "NotFound" in (await run(admin, "get", "configmap", "one")).err


async def test_questions_are_answered(admin):
    assert await sees(admin, "auth", "can-i", "create", "pods") == "yes\n"
    assert "herdsman:admin" in await sees(admin, "auth", "whoami")
    assert "deployments" in await sees(admin, "api-resources")
    assert "GROUP:      apps" in await sees(admin, "explain", "deployment.spec")
    assert "Ready" in await sees(admin, "get", "nodes")


async def test_a_watch_shows_what_happens(admin):
    watching = asyncio.create_task(
        run(admin, "get", "configmaps", "-w", "--request-timeout=6s", timeout_s=20), name="watch"
    )
    await asyncio.sleep(1.5)
    await sees(admin, "create", "configmap", "seen", "--from-literal=a=b")
    await sees(admin, "delete", "configmap", "seen")
    assert "seen" in (await watching).out


async def test_logs_follow(admin):
    assert "begun" in await sees(admin, "logs", "echo")
    following = await run(admin, "logs", "-f", "echo", "--tail=1", "--request-timeout=4s", timeout_s=20)
    assert following.out.count("line ") >= 2


@pytest.mark.parametrize("environment", TRANSPORTS)
async def test_exec_carries_input_output_and_exit_codes(admin, environment):
    failed = await run(
        admin, "exec", "echo", "--", "sh", "-c", "echo out; echo err >&2; exit 7", environment=environment
    )
    assert (failed.code, failed.out) == (7, "out\n")
    assert "err\n" in failed.err
    data = os.urandom(300_000)
    summed = await run(admin, "exec", "-i", "echo", "--", "sha256sum", stdin=data, environment=environment)
    assert summed.out.split()[0] == hashlib.sha256(data).hexdigest()


async def test_exec_has_a_terminal_of_the_right_size(admin):
    # `script` gives kubectl a terminal of its own, of the size that stty sets.
    inner = (
        f"stty rows 33 cols 99; exec {find_kubectl()} --kubeconfig {admin.kubeconfig} --context local -n {NAMESPACE} "
        "exec -it echo -- sh -c 'sleep 0.5; stty size; tty'"
    )
    process = await asyncio.create_subprocess_exec(
        "script", "-qec", inner, "/dev/null", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert process.returncode == 0, out
    assert b"33 99" in out
    assert b"/dev/pts/" in out


@pytest.mark.parametrize("environment", TRANSPORTS)
async def test_attach_hears_the_process(admin, environment):
    process = await asyncio.create_subprocess_exec(
        str(find_kubectl()), "--kubeconfig", str(admin.kubeconfig), "--context", "local", "-n", NAMESPACE, "attach", "echo",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(15):
            while b"line " not in await process.stdout.readline():
                assert process.returncode is None
    finally:
        process.kill()
        await process.wait()


async def test_cp_is_byte_exact_both_ways(admin, tmp_path):
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(3_000_000))
    await sees(admin, "cp", str(sent), "echo:/tmp/copied")
    await sees(admin, "cp", "echo:/tmp/copied", str(back))
    assert back.read_bytes() == sent.read_bytes()


@pytest.mark.parametrize("environment", TRANSPORTS)
async def test_port_forward_serves_many_requests(admin, environment):
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        str(find_kubectl()), "--kubeconfig", str(admin.kubeconfig), "--context", "local", "-n", NAMESPACE, "port-forward", "pod/echo",
        f"{port}:8080", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **environment},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(15):
            assert b"Forwarding" in await process.stdout.readline()
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                assert b"served" in await reader.read(-1)
                writer.close()
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def oldest():
    """Debian's kubectl of 2021: older wire forms, streams by SPDY alone."""
    try:
        return await fetch_debian_kubectl()
    except errors.NotFound as exc:
        pytest.skip(str(exc))


async def test_the_oldest_kubectl_works_too(admin, oldest, tmp_path):
    old = {"program": oldest}
    assert "v1.20" in await sees(admin, "version", "--client", "--short", **old)
    manifest = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"old"},"data":{"k":"1"}}'
    await sees(admin, "apply", "-f", "-", stdin=manifest, **old)
    await sees(admin, "apply", "-f", "-", stdin=manifest.replace(b'"1"', b'"2"'), **old)
    assert await sees(admin, "get", "configmap", "old", "-o", "jsonpath={.data.k}", **old) == "2"
    await sees(admin, "delete", "configmap", "old", **old)
    assert "Name:" in await sees(admin, "describe", "pod", "echo", **old)
    assert "begun" in await sees(admin, "logs", "echo", **old)
    assert "KIND:     Deployment" in await sees(admin, "explain", "deployment", **old)
    assert await sees(admin, "auth", "can-i", "create", "pods", **old) == "yes\n"
    failed = await run(admin, "exec", "echo", "--", "sh", "-c", "echo out; exit 7", **old)
    assert (failed.code, failed.out) == (7, "out\n")
    data = os.urandom(100_000)
    summed = await run(admin, "exec", "-i", "echo", "--", "sha256sum", stdin=data, **old)
    assert summed.out.split()[0] == hashlib.sha256(data).hexdigest()
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(data)
    await sees(admin, "cp", str(sent), "echo:/tmp/old", **old)
    await sees(admin, "cp", "echo:/tmp/old", str(back), **old)
    assert back.read_bytes() == data


async def test_fifty_calls_at_once_all_succeed(admin):
    answers = await asyncio.gather(*(run(admin, "get", "pods", "-o", "name") for _ in range(50)))
    assert {answer.code for answer in answers} == {0}
