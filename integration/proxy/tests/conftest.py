"""A real cluster, an agent's dialer in front of it, and the front door: what the tests of this folder talk through."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvloop
import yaml

from integration.kubelab import doctor
from integration.kubelab.cluster import Cluster
from integration.kubelab.images import BUSYBOX_IMAGE
from integration.kubelab.kubectl import Answer, kubectl
from integration.proxy import wire
from libs.common.access.principal import Principal
from libs.common.relay.dial import ReverseDialer
from libs.common.relay.pool import Address
from services.auth_proxy import identity
from tests.auth_proxy.door import Door, open_door

WEB = "echo started; mkdir -p /www; echo page > /www/index.html; exec httpd -f -p 8080 -h /www"
_LACKS = {"kubelab": "all", "full": "full"}


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


def pytest_generate_tests(metafunc):
    """Each test that takes `way` runs once for each of its module's PATHS: how the hub reaches the cluster."""
    if "way" in metafunc.fixturenames:
        metafunc.parametrize("way", getattr(metafunc.module, "PATHS", ("reverse",)), indirect=True)


def pytest_collection_modifyitems(items):
    marked = [(item, mark) for item in items for mark in _LACKS if item.get_closest_marker(mark)]
    findings = doctor.examine() if marked else []
    for item, mark in marked:
        missing = [f for f in findings if not f.ok and f.needed_by in {"all", _LACKS[mark]}]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"{missing[0].what}: {missing[0].detail}"))


@contextmanager
def running_cluster(*, full: bool) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="proxy-test-") as folder:
        made = asyncio.run(Cluster.up("prod", Path(folder), full=full))
        try:
            yield made
        finally:
            asyncio.run(made.down(delete=True))


@pytest.fixture(scope="session")
def plain_cluster() -> Iterator[Cluster]:
    """A control plane that tests may kill parts of."""
    with running_cluster(full=False) as made:
        yield made


@pytest.fixture(scope="session")
def full_cluster() -> Iterator[Cluster]:
    """A cluster with pods, one for the whole session: nobody kills it, and everybody cleans up what they made."""
    with running_cluster(full=True) as made:
        yield made


@pytest.fixture
def cluster(request) -> Cluster:
    """The full one for modules that say FULL = True."""
    return request.getfixturevalue("full_cluster" if getattr(request.module, "FULL", False) else "plain_cluster")


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
    agent: ReverseDialer | None
    token: str
    kubeconfig: Path

    async def kubectl(self, *arguments: str, **more) -> Answer:
        return await kubectl(self.kubeconfig, *arguments, **more)


def write_kubeconfig(file: Path, door: Door, token: str, *, port: int = 0) -> Path:
    """For a token of the door's. `port`: that of something in front of it."""
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "prod",
        "clusters": [{"name": "prod", "cluster": {
            "server": f"https://localhost:{port or door.port}/k8s/clusters/prod",
            "certificate-authority-data": base64.b64encode(door.ca_file.read_bytes()).decode(),
        }}],
        "users": [{"name": "ada", "user": {"token": token}}],
        "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "ada", "namespace": "default"}}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(document))
    file.chmod(0o600)
    return file


@pytest.fixture
async def way(request, cluster: Cluster, tmp_path: Path) -> AsyncIterator[Way]:
    async with open_way(cluster, tmp_path, path=request.param) as made:
        yield made


@asynccontextmanager
async def open_way(
    cluster: Cluster, tmp_path: Path, *, path: str = "reverse", **settings: object
) -> AsyncIterator[Way]:
    """The front door with ada in front of it, who owns the cluster. `path`: `reverse` by its agent, `direct`, or `none` yet."""
    direct = tmp_path / "direct"
    direct.mkdir(mode=0o700)
    if path == "direct":
        config = direct / "prod.kubeconfig"
        config.touch(mode=0o600)
        config.write_bytes(cluster.kubeconfig.read_bytes())
    async with open_door(tmp_path, direct_clusters=direct, **settings) as door, AsyncExitStack() as stack:
        token = await door.member("ada", "prod")
        # What the agent's desired set does: one binding of the role to the synthetic group.
        made = await kubectl(
            cluster.kubeconfig, "create", "clusterrolebinding", "herdsman:cluster-owner", "--clusterrole=cluster-admin",
            "--group=herdsman:cluster:prod:cluster-owner",
        )  # fmt: skip
        assert made.code == 0 or "already exists" in made.err, made.err
        address = api_server(cluster)
        agent = None
        if path == "reverse":
            agent = await stack.enter_async_context(door.agent("prod", lambda: address, b"", idle=4))
        yield Way(door, cluster, agent, token, write_kubeconfig(tmp_path / "kubeconfig", door, token))


@pytest.fixture
async def web(way: Way) -> Way:
    """A pod `web` with a shell and a page on port 8080, made once for the session."""
    answer = await kubectl(way.cluster.kubeconfig, "get", "pod", "web")
    if answer.code:
        made = await kubectl(
            way.cluster.kubeconfig, "run", "web", f"--image={BUSYBOX_IMAGE}", "--image-pull-policy=Never", "--labels=app=web",
            "--port=8080", "--expose", "--", "sh", "-c", WEB,
        )  # fmt: skip
        assert made.code == 0, made.err
    ready = await kubectl(
        way.cluster.kubeconfig, "wait", "--for=condition=Ready", "pod/web", "--timeout=90s", timeout_s=100
    )
    assert ready.code == 0, ready.err
    return way


@pytest.fixture
async def both(way: Way) -> AsyncIterator[wire.Wire]:
    """ada's calls through the hub, and the same calls straight to the API server under the same identity."""
    address = api_server(way.cluster)
    assert address.tls is not None
    uid = way.door.uids["user/ada"]
    principal = Principal(user="ada", user_uid=uid, principal_id=f"local:user:{uid}", token=way.token.split("_")[1])
    block = identity.render(principal, ("herdsman:cluster:prod:cluster-owner",), "")
    hub = wire.Way(
        f"https://localhost:{way.door.port}{wire.PREFIX}",
        way.door.client_tls(),
        (("Authorization", f"Bearer {way.token}"),),
    )
    direct = wire.Way(way.cluster.server, address.tls, wire.identity_headers(block.lines))
    async with wire.open_wire(hub, direct) as made:
        yield made
