"""The four owners, built as their processes build them, on one bus and one set of buckets in memory."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common import errors
from libs.common.access.principal import Principal
from libs.common.bus.memory import MemoryBus
from libs.common.contracts import messages as m
from libs.common.contracts import methods, subjects
from libs.common.crypto.envelope import Signer, Verifier
from libs.common.crypto.sealed import render_ring
from libs.common.resources import codec
from libs.common.resources.clusters import Cluster
from libs.common.resources.registry import BUCKETS
from libs.common.runtime.host import Host
from libs.common.store.memory import MemoryStore
from services.authz import main as authz
from services.authz.config import AuthzConfig
from services.identity import main as identity
from services.identity.config import BootstrapAdmin, IdentityConfig
from services.node_registry import main as node_registry
from services.node_registry.config import NodeRegistryConfig
from services.project import main as project
from services.project.config import ProjectConfig
from tests.access import made
from tests.access.hub import end

PASSWORD = "made for this hub alone"


async def take_events(_message) -> m.Empty:
    """What a front door answers, without which nobody is let in; what it writes is `tests/auth_proxy`'s to look at."""
    return m.Empty()


class Running:
    def __init__(self, bus, stores, signer) -> None:
        self.bus, self.stores, self.signer = bus, stores, signer

    async def login(self, user: str, password: str) -> Principal:
        request = m.LoginRequest(user=user, password=password)
        issued = await self.bus.request(methods.LOGIN.subject, request, m.IssuedToken)
        uid = codec.decode_document((await self.stores["identity"].get(f"users.{user}")).value, 1)["metadata"]["uid"]
        return Principal(user=user, user_uid=uid, principal_id=f"local:user:{uid}", token=issued.name)

    async def create(self, who: Principal, plural: str, owner: str, **document):
        request = m.ResourceWrite(identity=self.signer.seal(who), verb="create", plural=plural, body=document)
        return await self.bus.request(methods.WRITE[owner].subject, request, m.ResourceWriteReply)


@asynccontextmanager
async def running(tmp_path: Path):
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    (tmp_path / "secrets").write_text(render_ring("k1"), encoding="utf-8")
    bus, stores = MemoryBus(), {bucket: MemoryStore(bucket) for bucket in BUCKETS}
    key = Ed25519PrivateKey.generate()
    signer, verifier = Signer(key, Host.now), Verifier(key.public_key(), Host.now)
    common = {"nats_url": ["nats://unused"], "identity_public_key": tmp_path / "unused"}
    admin = BootstrapAdmin(user="ada", password_file=tmp_path / "password")
    services = [
        (
            "identity",
            identity.build,
            IdentityConfig(**common, bootstrap_admin=admin, secrets_keys=tmp_path / "secrets"),
        ),
        ("authz", authz.build, AuthzConfig(**common, bootstrap_admin_user="ada")),
        ("project", project.build, ProjectConfig(**common)),
        ("node_registry", node_registry.build, NodeRegistryConfig(**common)),
    ]
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        await stack.enter_async_context(bus.serve(methods.AUDIT_IDENTITY.subject, take_events, queue="auth_proxy"))
        before, hosts = asyncio.all_tasks(), []
        for name, build, config in services:
            host = Host(name, config, bus, stores.__getitem__, verifier, tasks, stack)
            await build(host)
            await host.finish_build()
            hosts.append(host)
        try:
            yield Running(bus, stores, signer), hosts
        finally:
            for host in hosts:
                host.begin_stop()
            await end([t for t in asyncio.all_tasks() - before if t is not asyncio.current_task()])


async def test_from_an_empty_hub_to_a_user_with_a_role_and_nodes(tmp_path, eventually):
    async with running(tmp_path) as (hub, hosts):
        await eventually(lambda: all(not host.waiting_for() for host in hosts))
        ada = await hub.login("ada", PASSWORD)
        with pytest.raises(errors.Unauthenticated):
            await hub.login("ada", "some other password")
        east = Cluster(metadata=made.meta("east"))
        await hub.stores["cluster_controller"].create("clusters.east", codec.encode(east))

        async def succeeds(work) -> object:
            """Copies in other processes follow within moments; a person would press the key again."""
            for _ in range(100):
                try:
                    return await work()
                except (errors.Denied, errors.Invalid, errors.NotFound):
                    await asyncio.sleep(0.02)
            return await work()

        await succeeds(lambda: hub.create(ada, "users", "identity", metadata={"name": "bob"}))
        binding = {"user": "bob", "role": "cluster-viewer", "scope": {"cluster": "east"}}
        reply = await succeeds(
            lambda: hub.create(ada, "roletemplatebindings", "authz", metadata={"name": "b"}, spec=binding)
        )
        assert reply.document["spec"]["scope"]["clusterUid"] == "uid-east"
        spec = {"namespaces": [{"cluster": "east", "namespace": "web"}]}
        await succeeds(lambda: hub.create(ada, "projects", "project", metadata={"name": "shop"}, spec=spec))

        seen = m.NodesObserved(nodes=[m.NodeObservation(name="n1", uid="u1", status={"ready": True})], complete=True)
        await hub.bus.publish(subjects.observation("uid-east", "nodes"), seen)
        await eventually(lambda: "nodes.east.n1" in hub.stores["node_registry"]._last)

        setting = m.PasswordChange(identity=hub.signer.seal(ada), user="bob", new_password="what bob was told")
        await succeeds(lambda: hub.bus.request(methods.CHANGE_PASSWORD.subject, setting, m.Empty))
        bob = await hub.login("bob", "what bob was told")
        with pytest.raises(errors.HerdsmanError) as refused:
            await hub.create(bob, "users", "identity", metadata={"name": "eve"})
        assert isinstance(refused.value, errors.Denied | errors.NotFound)
