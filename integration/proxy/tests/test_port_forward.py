"""Port-forwarding under load and with a port that nobody listens on, by kubectl's two carriers and by the oldest WebSocket form."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlencode

import aiohttp
import pytest
from yarl import URL

from integration.kubelab.kubectl import find_kubectl
from integration.proxy.tests.test_streams import CARRIERS, env, idle_again
from integration.proxy.wire import PREFIX

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(300)]


@asynccontextmanager
async def forwarding(way, carrier, *ports, pod="pod/web"):
    """kubectl port-forward; yields the process and the local ports."""
    process = await asyncio.create_subprocess_exec(
        find_kubectl(), f"--kubeconfig={way.kubeconfig}", "port-forward", pod, *ports,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **env(carrier)},
    )  # fmt: skip
    try:
        local = []
        async with asyncio.timeout(30):
            while len(local) < len(ports):
                line = await process.stdout.readline()
                assert line, await process.stderr.read()
                if found := re.search(rb"127\.0\.0\.1:(\d+)", line):
                    local.append(int(found[1]))
        yield process, local
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def fetch(port, path="index.html"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
        async with asyncio.timeout(60):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_fifty_connections_at_once_each_get_their_own_bytes(web, carrier):
    made = await web.kubectl(
        "exec", "web", "--", "sh", "-c", "[ -s /www/big ] || head -c 400000 /dev/urandom > /www/big; sha256sum /www/big"
    )
    digest = made.out.split()[0]
    async with forwarding(web, carrier, ":8080") as (_, (port,)):
        answers = await asyncio.gather(*(fetch(port, "big") for _ in range(50)))
        bodies = [answer.partition(b"\r\n\r\n")[2] for answer in answers]
        assert {hashlib.sha256(body).hexdigest() for body in bodies} == {digest}
        assert (await fetch(port)).endswith(b"page\n")
    await idle_again(web)


async def frames(socket):
    """What comes by channel until the socket closes: data on even channels, errors on odd ones; two bytes of port first."""
    found: dict[int, bytes] = {}
    async for message in socket:
        assert message.type == aiohttp.WSMsgType.BINARY
        found[message.data[0]] = found.get(message.data[0], b"") + message.data[1:]
    return found


async def test_a_port_that_nobody_listens_on_fails_alone(web):
    """The oldest form: one WebSocket, a pair of channels for each port."""
    url = f"https://localhost:{web.door.port}{PREFIX}/api/v1/namespaces/default/pods/web/portforward?ports=9&ports=8080"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            url, ssl=web.door.client_tls(), protocols=("v4.channel.k8s.io",), headers={"Authorization": f"Bearer {web.token}"}
        ) as socket,
    ):  # fmt: skip
        assert socket.protocol == "v4.channel.k8s.io"
        await socket.send_bytes(b"\x02GET /index.html HTTP/1.0\r\n\r\n")
        found: dict[int, bytes] = {}
        async with asyncio.timeout(30):
            while not found.get(2, b"").endswith(b"page\n") or len(found.get(1, b"")) <= 2:
                message = await socket.receive()
                assert message.type == aiohttp.WSMsgType.BINARY, message
                found[message.data[0]] = found.get(message.data[0], b"") + message.data[1:]
    assert int.from_bytes(found[0][:2], "little") == 9
    assert b"refused" in found[1]
    assert int.from_bytes(found[2][:2], "little") == 8080
    assert len(found[3]) == 2  # the second port has no error
    await idle_again(web)


async def test_a_failing_port_ends_kubectl_through_the_hub_as_it_does_without(web):
    """kubectl gives up all ports when one connection fails. The hub must neither hide that nor leave anything behind."""
    for kubeconfig in (web.kubeconfig, web.cluster.kubeconfig):
        process = await asyncio.create_subprocess_exec(
            find_kubectl(), f"--kubeconfig={kubeconfig}", "port-forward", "pod/web", ":9",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(40):
            found = re.search(rb"127\.0\.0\.1:(\d+)", await process.stdout.readline())
            # kubectl closes the connection with our request unread in it or read: a reset is as good an end as none.
            with suppress(ConnectionResetError):
                assert await fetch(int(found[1])) == b""
            _, err = await process.communicate()
        assert process.returncode == 1
        assert b"refused" in err
    await idle_again(web)


async def test_the_v4_form_of_exec_brings_output_and_status(web):
    """What older clients speak: no way to say that the input ended, the exit code as a Status on channel 3."""
    target = f"https://localhost:{web.door.port}{PREFIX}/api/v1/namespaces/default/pods/web/exec"
    command = ["sh", "-c", "read x; echo got $x; echo err >&2; exit 9"]
    query = urlencode({"stdin": "true", "stdout": "true", "stderr": "true", "command": command}, doseq=True)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            URL(f"{target}?{query}", encoded=True), ssl=web.door.client_tls(), protocols=("v4.channel.k8s.io",),
            headers={"Authorization": f"Bearer {web.token}"},
        ) as socket,
    ):  # fmt: skip
        await socket.send_bytes(b"\x00words\n")
        async with asyncio.timeout(30):
            found = await frames(socket)
    assert (found[1], found[2]) == (b"got words\n", b"err\n")
    assert json.loads(found[3])["details"]["causes"] == [{"reason": "ExitCode", "message": "9"}]
