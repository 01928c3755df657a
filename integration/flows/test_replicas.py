"""Two front doors as on two machines: own ports, one bus, the hop between them over mutual TLS, a balancer in front for the agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from integration.flows.outside import Agent, make_cluster, running
from integration.flows.test_bad_input import token_of
from integration.harness.hub import Hub, eventually, free_port
from integration.harness.load import Client, Target
from integration.kubelab.cluster import Cluster
from tests.auth_proxy.door import make_hop_pki

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(300)]


@dataclass
class Replica:
    """A front door of its own beside that of `herdsman up`."""

    hub: Hub
    name: str
    folder: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        settings = json.loads((self.hub.data / "config" / "auth_proxy.json").read_text())
        settings |= {
            "listen": f"127.0.0.1:{self.port}", "hop_dir": None, "hop_listen": "127.0.0.1:0", "workers": 1,
            "health_file": str(self.folder / f"{self.name}.health"), "tunnel_wait_s": 10,
            **{key: str(file) for key, file in make_hop_pki(self.folder).items()},
        }  # fmt: skip
        config = self.folder / f"{self.name}.json"
        config.write_text(json.dumps(settings))
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "services.auth_proxy", "--config", str(config), stdout=log, stderr=log
            )
        await eventually(self.is_ready, 60)

    async def is_ready(self) -> bool:
        status, _ = await self.get("/readyz", "")
        return status == 200

    async def get(self, path: str, prefix: str = "/k8s/clusters/edge", token: str = "") -> tuple[int, bytes]:
        """One GET over a connection of its own; 0 when nobody answers."""
        client = Client(Target("127.0.0.1", self.port, self.hub.tls(), token, prefix), keep=False)
        try:
            async with asyncio.timeout(20):
                return await client.call("GET", path)
        except (OSError, EOFError) as exc:
            return 0, str(exc).encode()
        finally:
            client.close()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()


@contextlib.asynccontextmanager
async def balancer(*ports: int) -> AsyncIterator[int]:
    """A TCP balancer that gives each connection to the first port that takes it; gives its own port."""
    tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        for port in ports:
            try:
                to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            await asyncio.gather(pump(reader, to_writer), pump(to_reader, writer))
            return
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def edge(needs_kubernetes, tmp_path) -> AsyncIterator[Cluster]:
    made = await Cluster.up("edge", tmp_path / "edge", full=False)
    yield made
    await made.down(delete=True)


async def test_a_cluster_of_one_replica_is_served_by_the_other_and_outlives_its_death(bare_hub, edge, tmp_path):
    first, second = (Replica(bare_hub, name, tmp_path) for name in ("first", "second"))
    registration = await make_cluster(bare_hub, "edge")
    token = await token_of(await bare_hub.admin())
    try:
        await first.start()
        await second.start()
        async with balancer(first.port, second.port) as port:
            agent = Agent(bare_hub, tmp_path / "agent", edge.kubeconfig, hub_url=f"https://localhost:{port}")
            async with running(agent, registration):

                async def is_served() -> bool:
                    return (await first.get("/version", token=token))[0] == 200

                await eventually(is_served, 90)
                await eventually(lambda: _has_rights(first, token), 60)
                for _ in range(5):
                    status, body = await second.get("/api/v1/namespaces", token=token)
                    assert (status, b"kube-system" in body) == (200, True), body

                first.send(signal.SIGKILL)
                began = time.monotonic()
                status, body = await second.get("/version", token=token)
                while status != 200:
                    assert time.monotonic() - began < 10, (status, body)
                    await asyncio.sleep(0.1)
                    status, body = await second.get("/version", token=token)
                print(f"served by the other replica {time.monotonic() - began:.1f} s after kill -9")
                for _ in range(5):
                    assert (await second.get("/version", token=token))[0] == 200
    finally:
        await first.stop()
        await second.stop()


async def _has_rights(replica: Replica, token: str) -> bool:
    return (await replica.get("/api/v1/namespaces", token=token))[0] == 200
