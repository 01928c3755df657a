"""A real cluster, an agent's dialer in front of it, and the front door: what the tests of this folder talk through."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvloop
import yaml

from integration.kubelab import doctor
from integration.kubelab.cluster import Cluster
from integration.kubelab.kubectl import Answer, kubectl
from libs.common.relay.dial import ReverseDialer
from libs.common.relay.pool import Address
from tests.auth_proxy.door import Door, open_door

_LACKS = {"kubelab": "all", "full": "full"}


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items):
    marked = [(item, mark) for item in items for mark in _LACKS if item.get_closest_marker(mark)]
    findings = doctor.examine() if marked else []
    for item, mark in marked:
        missing = [f for f in findings if not f.ok and f.needed_by in {"all", _LACKS[mark]}]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"{missing[0].what}: {missing[0].detail}"))


@pytest.fixture(scope="module")
def cluster(request) -> Iterator[Cluster]:
    full = bool(getattr(request.module, "FULL", False))
    with tempfile.TemporaryDirectory(prefix="proxy-test-") as folder:
        made = asyncio.run(Cluster.up("prod", Path(folder), full=full))
        yield made
        asyncio.run(made.down(delete=True))


def api_server(cluster: Cluster) -> Address:
    """The cluster's API server with its administrator's certificate, as an agent outside of it has one."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    user = config["users"][0]["user"]
    context = ssl.create_default_context(cafile=str(cluster.ca_file))
    with tempfile.NamedTemporaryFile("wb") as file:
        for name in ("client-certificate", "client-key"):
            data = user.get(f"{name}-data")
            file.write(base64.b64decode(data) if data else Path(user[name]).read_bytes())
        file.flush()
        context.load_cert_chain(file.name)
    parts = urlsplit(cluster.server)
    assert parts.hostname
    assert parts.port
    return Address("the API server", parts.hostname, parts.port, tls=context, server_hostname=parts.hostname)


@dataclass
class Way:
    """One person's way to the cluster: kubectl through the front door."""

    door: Door
    cluster: Cluster
    agent: ReverseDialer
    token: str
    kubeconfig: Path

    async def kubectl(self, *arguments: str, **more) -> Answer:
        return await kubectl(self.kubeconfig, *arguments, **more)


def write_kubeconfig(file: Path, door: Door, token: str) -> Path:
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "prod",
        "clusters": [{"name": "prod", "cluster": {
            "server": f"https://localhost:{door.port}/k8s/clusters/prod",
            "certificate-authority-data": base64.b64encode(door.ca_file.read_bytes()).decode(),
        }}],
        "users": [{"name": "ada", "user": {"token": token}}],
        "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "ada", "namespace": "default"}}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(document))
    file.chmod(0o600)
    return file


@pytest.fixture
async def way(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Way]:
    async with open_door(tmp_path) as door:
        token = await door.member("ada", "prod")
        # What the agent's desired set does: one binding of the role to the synthetic group.
        made = await kubectl(
            cluster.kubeconfig, "create", "clusterrolebinding", "herdsman:cluster-owner", "--clusterrole=cluster-admin",
            "--group=herdsman:cluster:prod:cluster-owner",
        )  # fmt: skip
        assert made.code == 0 or "already exists" in made.err, made.err
        address = api_server(cluster)
        async with door.agent("prod", lambda: address, b"", idle=4) as agent:
            yield Way(door, cluster, agent, token, write_kubeconfig(tmp_path / "kubeconfig", door, token))
