"""Real programs between agent and hub: nginx with pooled connections, nginx that passes WebSockets only, a proxy with a password."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from integration.tunnel import network
from tests.auth_proxy.conftest import Echo
from tests.auth_proxy.door import Door, open_door
from tests.auth_proxy.test_agents import echo_stream

pytestmark = pytest.mark.timeout(120)
POD = "/k8s/clusters/prod/api/v1/pods"
_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log notice;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_upgrade $passed {{ {passed} }}
  map $passed $asked {{ default upgrade; "" ""; }}
  upstream hub {{ server 127.0.0.1:{hub}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};
    location / {{
      proxy_pass https://hub; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $passed; proxy_set_header Connection $asked; proxy_buffering off;
    }}
  }}
}}
"""
_PASSED = {"plain": "default $http_upgrade;", "websocket": 'default ""; websocket websocket;'}
_TINYPROXY = """Port {port}
Listen 127.0.0.1
Timeout 600
Allow 127.0.0.1
BasicAuth agent s3cret
LogFile "{folder}/proxy.log"
LogLevel Connect
"""


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def program(port: int, *argv: str) -> AsyncIterator[None]:
    """Run until the block ends; begins when the port answers."""
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
    try:
        for _ in range(200):
            assert process.returncode is None, argv
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                break
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path, listen="0.0.0.0:0", tunnel_wait_s=10.0) as opened:
        yield opened


async def serves(door: Door, token: str) -> None:
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(door.get(POD, token) for _ in range(12)))
    assert {answer.status for answer in answers} == {200}
    await echo_stream(door, token, bytes(range(256)) * 8000)


@pytest.mark.parametrize("carrier", _PASSED)
async def test_nginx_with_pooled_connections_passes_one_carrier_or_the_other(door, echo, tmp_path, carrier):
    """nginx sends each request on any connection of its pool; the handshake asks for nothing but its own."""
    nginx, port = need("nginx"), free_port()
    token = await door.member()
    config = tmp_path / "nginx.conf"
    config.write_text(
        _NGINX.format(
            folder=tmp_path, passed=_PASSED[carrier], hub=door.port, port=port,
            certificate=door.ca_file, key=door.ca_file.with_name("tls.key"),
        )
    )  # fmt: skip
    argv = (nginx, "-p", str(tmp_path), "-c", str(config))
    async with contextlib.AsyncExitStack() as stack:
        async with program(port, *argv):
            agent = await stack.enter_async_context(door.agent("prod", echo.address, url=f"https://localhost:{port}"))
            assert agent.carrier == carrier
            await serves(door, token)
        # The balancer is gone and comes back: so does the agent, by what passes.
        assert agent.connected == 0
        async with program(port, *argv):
            await serves(door, token)
            assert agent.carrier == carrier


@pytest.mark.skipif(bool(network.why_not()), reason=network.why_not())
async def test_agent_reaches_the_hub_through_a_proxy_with_a_password_unless_told_not_to(
    door, echo, tmp_path, monkeypatch
):
    proxy, port = need("tinyproxy"), free_port()
    token = await door.member()
    config, log = tmp_path / "proxy.conf", tmp_path / "proxy.log"
    config.write_text(_TINYPROXY.format(port=port, folder=tmp_path))
    lenient = door.client_tls()
    lenient.check_hostname = False
    monkeypatch.setattr(Door, "client_tls", lambda _self: lenient)
    async with network.elsewhere() as away, program(port, proxy, "-d", "-c", str(config)):
        url = f"https://{away.here}:{door.port}"
        environment = {"HTTPS_PROXY": f"http://agent:s3cret@127.0.0.1:{port}"}
        async with door.agent("prod", echo.address, url=url, environment=environment):
            await serves(door, token)
        assert f"CONNECT {away.here}:{door.port}" in log.read_text()
        asked = log.read_text().count("CONNECT ")
        async with door.agent("prod", echo.address, url=url, environment={**environment, "NO_PROXY": "10.0.0.0/8"}):
            await serves(door, token)
        assert log.read_text().count("CONNECT ") == asked
        wrong = {"HTTPS_PROXY": f"http://agent:wrong@127.0.0.1:{port}"}
        async with door.agent("prod", echo.address, url=url, environment=wrong, wait=False) as agent:
            async with asyncio.timeout(10):
                while not agent.last_error:  # noqa: ASYNC110 - a text, not an event
                    await asyncio.sleep(0.05)
            assert "refuses the way" in agent.last_error
            assert "wrong" not in agent.last_error
