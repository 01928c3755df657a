"""kubectl and agents through real balancers, with the configurations of the guide."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from integration.balancers.process import Backend, missing, run_balancer
from integration.harness.kubectls import fetch_debian_kubectl
from integration.kubelab.kubectl import find_kubectl, kubectl
from integration.proxy.tests.conftest import Way, api_server, open_way, write_kubeconfig
from integration.proxy.tests.test_port_forward import fetch, forwarding
from integration.proxy.tests.test_stdio import run_bytes
from integration.proxy.tests.test_streams import CARRIERS, env
from libs.common import errors

FULL = True
pytestmark = [pytest.mark.kubelab, pytest.mark.full, pytest.mark.timeout(300)]
HTTP = "nginx-http.conf"
WEBSOCKET = "nginx-websocket.conf"
BALANCERS = {
    "haproxy-tcp": ("haproxy-tcp.cfg", {}),
    "nginx-stream": ("nginx-stream.conf", {}),
    "nginx-http": (HTTP, {}),
    "nginx-http-buffering": (HTTP, {"proxy_buffering": "on", "proxy_request_buffering": "on"}),
    "nginx-websocket": (WEBSOCKET, {}),
}
MIB = 1024 * 1024


@dataclass
class Behind:
    """A person's kubectl whose kubeconfig names the balancer."""

    way: Way
    balancer: str
    port: int
    kubeconfig: Path

    @property
    def passes_spdy(self) -> bool:
        return self.balancer != "nginx-websocket"

    @property
    def carriers(self) -> list[str]:
        return [carrier for carrier in CARRIERS if carrier != "spdy" or self.passes_spdy]

    async def kubectl(self, *arguments, **more):
        return await kubectl(self.kubeconfig, *arguments, **more)


@asynccontextmanager
async def behind(name: str, way: Way, folder: Path):
    file, changes = BALANCERS[name]
    if lack := missing(file):
        pytest.skip(lack)
    backend = Backend(way.door.port, way.door.ca_file, way.door.ca_file.with_name("tls.key"))
    (folder / name).mkdir()
    async with run_balancer(file, backend, folder / name, **changes) as port:
        yield Behind(way, name, port, write_kubeconfig(folder / "behind", way.door, way.token, port=port))


@pytest.fixture(params=BALANCERS)
async def balanced(request, web, tmp_path):
    async with behind(request.param, web, tmp_path) as made:
        yield made


async def test_reads_watches_and_logs_pass(balanced):
    listed = await balanced.kubectl("get", "pods", "web", "-o", "name")
    assert (listed.code, listed.out) == (0, "pod/web\n"), listed.err
    process = await asyncio.create_subprocess_exec(
        find_kubectl(), f"--kubeconfig={balanced.kubeconfig}", "get", "configmaps", "--watch-only", "-o", "name",
        "--field-selector=metadata.name=balanced", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        # An event arrives when it happens, not when some buffer is full.
        async with asyncio.timeout(30):
            while True:
                await kubectl(balanced.way.cluster.kubeconfig, "delete", "configmap", "balanced", "--ignore-not-found")
                made = await balanced.kubectl("create", "configmap", "balanced")
                assert made.code == 0, made.err
                try:
                    line = await asyncio.wait_for(process.stdout.readline(), 3)
                except TimeoutError:
                    continue  # the watch had not begun
                assert line == b"configmap/balanced\n"
                break
    finally:
        process.terminate()
        await process.communicate()
    followed = await balanced.kubectl("logs", "-f", "web", "--request-timeout=2s")
    assert "started" in followed.out


async def test_streams_pass_by_every_carrier_that_the_balancer_knows(balanced, tmp_path):
    sent = os.urandom(16 * MIB)
    (tmp_path / "there").write_bytes(sent)
    for carrier in balanced.carriers:
        failed = await balanced.kubectl("exec", "web", "--", "sh", "-c", "echo out; exit 7", environment=env(carrier))
        assert (failed.code, failed.out) == (7, "out\n"), failed.err
        there = await balanced.kubectl("cp", str(tmp_path / "there"), "web:/tmp/b", environment=env(carrier))
        assert there.code == 0, there.err
        back = await balanced.kubectl("cp", "web:/tmp/b", str(tmp_path / "back"), environment=env(carrier))
        assert back.code == 0, back.err
        assert hashlib.sha256((tmp_path / "back").read_bytes()).digest() == hashlib.sha256(sent).digest()
        async with forwarding(balanced, carrier, ":8080") as (_, (port,)):
            answers = await asyncio.gather(*(fetch(port) for _ in range(5)))
        assert all(answer.endswith(b"page\n") for answer in answers)


async def test_spdy_is_refused_in_words_where_only_websockets_pass(web, tmp_path):
    async with behind("nginx-websocket", web, tmp_path) as balanced:
        refused = await balanced.kubectl("exec", "web", "--", "true", environment=env("spdy"))
        assert refused.code == 1
        assert "pgrade" in refused.err, refused.err
        try:
            oldest = await fetch_debian_kubectl()
        except errors.NotFound as exc:
            pytest.skip(str(exc))
        old = await balanced.kubectl("exec", "web", "--", "true", program=oldest)
        assert old.code == 1
        assert "pgrade" in old.err, old.err


async def test_a_pod_cannot_give_orders_to_the_balancer(web, tmp_path):
    """nginx takes X-Accel-Redirect from an answer for the word of the site behind it, and serves another page of that site."""
    script = "#!/bin/sh\necho 'X-Accel-Redirect: /healthz'; echo 'Content-Type: text/plain'; echo; echo mine"
    made = await web.kubectl(
        "exec", "-i", "web", "--", "sh", "-c", "mkdir -p /www/cgi-bin; cat > /www/cgi-bin/x; chmod +x /www/cgi-bin/x",
        stdin=script.encode(),
    )  # fmt: skip
    assert made.code == 0, made.err
    async with behind("nginx-http", web, tmp_path) as balanced:
        page = await balanced.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/cgi-bin/x")
    assert page.out == "mine\n"


async def test_kept_connections_to_the_hub_never_mix_up_people(web, tmp_path):
    """nginx sends calls of many people over one connection: each answer must be its caller's."""
    person = await web.door.user("vera")
    await web.door.role("nothing-much")
    await web.door.bind(person, "prod", "nothing-much")
    async with behind("nginx-http", web, tmp_path) as balanced:
        configs = {"ada": balanced.kubeconfig, "vera": write_kubeconfig(tmp_path / "vera", web.door, await web.door.token(person), port=balanced.port)}  # fmt: skip
        whoami = await asyncio.gather(
            *(kubectl(configs[name], "auth", "whoami", "-o", "json") for name in ("ada", "vera") * 8)
        )
    names = [json.loads(answer.out)["status"]["userInfo"]["username"] for answer in whoami]
    assert names == ["herdsman:ada", "herdsman:vera"] * 8


async def test_the_record_names_the_client_behind_a_balancer_and_not_what_it_says_itself(full_cluster, tmp_path):
    async with open_way(full_cluster, tmp_path, trusted_proxies=["127.0.0.1/32"]) as way:
        async with behind("nginx-http", way, tmp_path) as balanced:
            # The client is on another address of the loopback network; what it writes itself does not count.
            reader, writer = await asyncio.open_connection(
                "localhost", balanced.port, ssl=way.door.client_tls(), local_addr=("127.0.0.9", 0)
            )
            writer.write(
                f"GET /k8s/clusters/prod/version HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {way.token}\r\n"
                "X-Forwarded-For: 198.51.100.1\r\nConnection: close\r\n\r\n".encode()
            )
            async with asyncio.timeout(20):
                assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()

        calls = await way.door.events(1, stage="ResponseComplete")
    assert [call["sourceIPs"] for call in calls if call["requestURI"].endswith("/version")] == [["127.0.0.9"]]


@pytest.mark.parametrize(
    "name",
    [
        "haproxy-tcp",
        "nginx-stream",
        "nginx-http",
        "nginx-http-buffering",
        "nginx-websocket",
    ],
)
async def test_an_agent_reaches_the_hub_through_it_and_serves(web, full_cluster, tmp_path, name):
    """The way of a person's stream is one thing, that of the agent's connection another: all of them pass here."""
    folder = tmp_path / "second"
    folder.mkdir()
    address = api_server(full_cluster)
    sent = os.urandom(4 * MIB)
    async with open_way(full_cluster, folder, path="none") as way, behind(name, way, folder) as balanced:
        url = f"https://localhost:{balanced.port}"
        async with way.door.agent("prod", lambda: address, b"", idle=4, url=url) as agent:
            assert agent.connected >= 4
            answers = await asyncio.gather(*(way.kubectl("get", "namespaces", "-o", "name") for _ in range(10)))
            assert [answer.err for answer in answers if answer.code] == []
            big = await way.kubectl("get", "--raw", "/openapi/v2")
            assert len(json.loads(big.out)["paths"]) > 300
            for carrier in CARRIERS:
                code, out, err = await run_bytes(way, carrier, "exec", "-i", "web", "--", "cat", stdin=sent)
                assert code == 0, err
                assert out == sent
