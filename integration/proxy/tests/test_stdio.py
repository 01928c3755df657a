"""What goes in and out of a pod's process: every byte, the end of the input, the size of the terminal, by both carriers."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import pty
import signal
import struct
import termios

import pytest

from integration.kubelab.images import BUSYBOX_IMAGE
from integration.kubelab.kubectl import find_kubectl, kubectl
from integration.proxy.tests.test_streams import CARRIERS, env, idle_again

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(300)]


async def run_bytes(way, carrier, *arguments, stdin=b"", timeout_s=60):
    """(exit code, standard output as bytes, standard error)."""
    process = await asyncio.create_subprocess_exec(
        find_kubectl(), f"--kubeconfig={way.kubeconfig}", f"--cache-dir={way.kubeconfig.parent / 'kubectl-cache'}", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env(carrier)},
    )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out, err.decode(errors="replace")


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_the_end_of_the_input_is_noticed_and_the_rest_of_the_output_still_comes(web, carrier):
    # The process says its last words only after its input ended.
    command = "cat >/dev/null; sleep 0.3; echo after the end; exit 3"
    code, out, _ = await run_bytes(web, carrier, "exec", "-i", "web", "--", "sh", "-c", command, stdin=b"x\n")
    assert (code, out) == (3, b"after the end\n")


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_every_byte_goes_in_and_out_unchanged(web, carrier):
    sent = bytes(range(256)) * 16 + os.urandom(3_000_000)
    code, out, err = await run_bytes(web, carrier, "exec", "-i", "web", "--", "cat", stdin=sent)
    assert code == 0, err
    assert hashlib.sha256(out).hexdigest() == hashlib.sha256(sent).hexdigest()


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_output_is_never_cut_short(web, carrier):
    """A process that ends at once after a lot of output: its last line must come, each time."""
    answers = await asyncio.gather(
        *(run_bytes(web, carrier, "exec", "web", "--", "seq", "1", "60000") for _ in range(8))
    )
    expected = b"".join(b"%d\n" % i for i in range(1, 60001))
    assert [code for code, _, _ in answers] == [0] * 8
    assert all(out == expected for _, out, _ in answers)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_terminal_follows_the_size_of_the_window(web, carrier):
    master, slave = pty.openpty()
    set_size(slave, 24, 80)
    process = await asyncio.create_subprocess_exec(
        find_kubectl(), f"--kubeconfig={web.kubeconfig}", "exec", "-it", "web", "--", "sh", "-c",
        "while true; do stty size; sleep 0.1; done",
        stdin=slave, stdout=slave, stderr=slave, env={**os.environ, **env(carrier)}, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    os.set_blocking(master, False)
    try:
        for rows, columns in ((24, 80), (41, 132), (10, 33)):
            set_size(master, rows, columns)
            process.send_signal(signal.SIGWINCH)
            await read_until(master, f"{rows} {columns}\r\n".encode())
        os.write(master, b"\x03")
        async with asyncio.timeout(20):
            assert await process.wait() == 130
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)
    await idle_again(web)


def set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def read_until(terminal: int, wanted: bytes) -> None:
    seen = b""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(terminal, readable.set)
    try:
        async with asyncio.timeout(20):
            while wanted not in seen:
                await readable.wait()
                readable.clear()
                seen += os.read(terminal, 65536)
    except TimeoutError:
        raise AssertionError(f"{wanted!r} did not come: {seen[-300:]!r}") from None
    finally:
        loop.remove_reader(terminal)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_attach_speaks_with_a_process_that_runs_already(web, carrier):
    name = f"listener-{carrier}"
    await kubectl(
        web.cluster.kubeconfig, "run", name, f"--image={BUSYBOX_IMAGE}", "--image-pull-policy=Never", "--restart=Never",
        "--stdin", "--overrides", json.dumps({"spec": {"containers": [{
            "name": name, "image": BUSYBOX_IMAGE, "imagePullPolicy": "Never", "stdin": True, "stdinOnce": True,
            "command": ["sh", "-c", "read line; echo heard $line; cat >/dev/null; exit 5"]}]}}),
        "--attach=false",
    )  # fmt: skip
    ready = await kubectl(
        web.cluster.kubeconfig, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s", timeout_s=90
    )
    assert ready.code == 0, ready.err
    _, out, err = await run_bytes(web, carrier, "attach", "-i", name, stdin=b"hello\n")
    assert b"heard hello\n" in out, err
    # Its input ended with ours, so it ended with its own code.
    ended = await kubectl(
        web.cluster.kubeconfig, "wait", f"pod/{name}", "--for=jsonpath={.status.containerStatuses[0].state.terminated.exitCode}=5",
        "--timeout=30s", timeout_s=40,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    await kubectl(web.cluster.kubeconfig, "delete", "pod", name, "--now", "--wait=false")


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_the_carrier_is_the_one_that_was_asked_for(web, carrier):
    """WebSocket is a GET, SPDY a POST: kubectl tells which one it made."""
    code, _, told = await run_bytes(web, carrier, "exec", "web", "-v=8", "--", "true")
    assert code == 0, told
    method = {"websocket": "GET", "spdy": "POST"}[carrier]
    made = [line for line in told.splitlines() if "/pods/web/exec" in line and ("GET" in line or "POST" in line)]
    assert made, told
    assert all(method in line for line in made)
