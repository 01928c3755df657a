"""The whole front door in this process, by its own `build`, over TLS on loopback; state in memory stores. And agents for it.

Used by the tests here and by `integration/proxy`. Not imitated: NATS (its double stands in), the gateway (a scripted server).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import ipaddress
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nkeys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.bus.memory import MemoryBus
from libs.common.crypto import ca
from libs.common.crypto.envelope import Verifier, generate_key_pair
from libs.common.relay.dial import ReverseDialer, new_instance
from libs.common.relay.handshake import TunnelIdentity
from libs.common.relay.outbound import Hub
from libs.common.relay.pool import Address
from libs.common.relay.sweeper import Sweeper
from libs.common.resources import codec
from libs.common.resources.access import (
    BindingScope,
    PolicyRule,
    RoleTemplate,
    RoleTemplateBinding,
    RoleTemplateBindingSpec,
    RoleTemplateSpec,
)
from libs.common.resources.clusters import AgentStatus, Cluster, ClusterStatus
from libs.common.resources.identity import Token, TokenPrivate, TokenSpec, User
from libs.common.resources.meta import ObjectMeta, Resource
from libs.common.resources.registry import BY_MODEL
from libs.common.runtime.host import Host
from libs.common.store.memory import MemoryStore
from services.auth_proxy import agent_route
from services.auth_proxy.config import AuthProxyConfig
from services.auth_proxy.doorstep import Doorstep
from services.auth_proxy.hop import NAME
from services.auth_proxy.main import build
from services.auth_proxy.tunnels import LocalTunnels


def make_pki(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost and 127.0.0.1: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "tls.crt", folder / "tls.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


def make_hop_pki(folder: Path, name: str = NAME) -> dict[str, Path]:
    """Settings of the hop between machines: an internal authority, made once in `folder`, and a certificate of it for `name`."""
    now = dt.datetime.now(dt.UTC)
    files = {key: folder / key for key in ("hop_ca", "hop_certificate", "hop_key", "ca_key")}
    if not files["hop_ca"].exists():
        authority = ca.generate_ca("internal", now)
        files["hop_ca"].write_bytes(authority.certificate)
        files["ca_key"].write_bytes(authority.key)
    authority = ca.KeyPair(files["hop_ca"].read_bytes(), files["ca_key"].read_bytes())
    pair = ca.issue_server(authority, [name], now, also_client=True)
    files["hop_certificate"].write_bytes(pair.certificate)
    files["hop_key"].write_bytes(pair.key)
    return {key: file for key, file in files.items() if key != "ca_key"}


@dataclass
class AgentKey:
    """An NKEY user key of a test's agent."""

    seed: bytes = field(default_factory=lambda: nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER))

    @property
    def public(self) -> str:
        return nkeys.from_seed(bytearray(self.seed)).public_key.decode()

    def sign(self, data: bytes) -> bytes:
        return bytes(nkeys.from_seed(bytearray(self.seed)).sign(data))


@dataclass
class Door:
    host: Host[AuthProxyConfig]
    stores: dict[str, MemoryStore]
    tasks: asyncio.TaskGroup
    port: int
    ca_file: Path
    audit_file: Path
    tunnels: LocalTunnels
    doorstep: Doorstep
    keys: dict[str, AgentKey] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)

    def client_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def events(self, count: int, *, stage: str = "") -> list[dict]:
        """The audit events so far, once there are at least `count`; records of the chain are left out."""
        async with asyncio.timeout(15):
            while True:
                text = self.audit_file.read_text() if self.audit_file.exists() else ""
                events = [
                    e for e in map(json.loads, text.splitlines()) if e["kind"] == "Event" and stage in ("", e["stage"])
                ]
                if len(events) >= count:
                    return events
                await asyncio.sleep(0.02)

    async def put(self, resource: Resource) -> None:
        """Create or replace."""
        kind = BY_MODEL[type(resource)]
        store = self.stores[kind.bucket]
        key = kind.key(resource.name)
        try:
            entry = await store.get(key)
        except errors.NotFound:
            await store.create(key, codec.encode(resource))
        else:
            await store.update(key, codec.encode(resource), entry.revision)
        await self.settle(kind.bucket, kind.plural)

    async def remove(self, model: type[Resource], name: str) -> None:
        kind = BY_MODEL[model]
        entry = await self.stores[kind.bucket].get(kind.key(name))
        await self.stores[kind.bucket].delete(entry.key, entry.value, entry.revision)
        await self.settle(kind.bucket, kind.plural)

    async def settle(self, bucket: str, plural: str) -> None:
        informer = await self.host.informer(bucket, plural)
        await informer.wait_revision(self.stores[bucket]._revision, timeout_s=2)

    async def user(self, name: str, *, enabled: bool = True, uid: str = "") -> User:
        user = User(metadata=meta(name, uid or self.uids.setdefault(f"user/{name}", secrets.token_hex(8))))
        user.spec.enabled = enabled
        await self.put(user)
        return user

    async def token(self, user: User, name: str = "", *, ttl_s: float = 3600, **spec: object) -> str:
        name = name or f"t{secrets.token_hex(4)}"
        secret = secrets.token_urlsafe(32)
        expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=ttl_s)
        await self.put(
            Token(
                metadata=meta(name),
                spec=TokenSpec(user=user.name, user_uid=user.uid, expires_at=expires, **spec),
                private=TokenPrivate(secret_hash=hashlib.sha256(secret.encode()).hexdigest()),
            )
        )
        return f"hm_{name}_{secret}"

    async def cluster(self, name: str) -> Cluster:
        key = self.keys.setdefault(name, AgentKey())
        uid = self.uids.setdefault(f"cluster/{name}", secrets.token_hex(8))
        cluster = Cluster(metadata=meta(name, uid), status=ClusterStatus(agent=AgentStatus(public_key=key.public)))
        await self.put(cluster)
        return cluster

    async def role(self, name: str = "cluster-owner") -> None:
        rule = PolicyRule(verbs=["*"], api_groups=["*"], resources=["*"])
        await self.put(RoleTemplate(metadata=meta(name), spec=RoleTemplateSpec(scope="cluster", rules=[rule])))

    async def bind(self, user: User, cluster: str, role: str = "cluster-owner", name: str = "") -> str:
        name = name or f"b{secrets.token_hex(4)}"
        await self.put(
            RoleTemplateBinding(
                metadata=meta(name),
                spec=RoleTemplateBindingSpec(
                    principal=f"local:user:{user.uid}", user=user.name, role=role, scope=BindingScope(cluster=cluster)
                ),
            )
        )
        return name

    async def member(self, user: str = "ada", cluster: str = "prod") -> str:
        """Everything for one person with a role in one cluster; returns the token."""
        person = await self.user(user)
        await self.role()
        await self.cluster(cluster)
        await self.bind(person, cluster)
        return await self.token(person)

    @asynccontextmanager
    async def agent(
        self, cluster: str, upstream: Callable[[], Address], authorization: bytes = b"Bearer sa-token", *, idle: int = 2,
        key: AgentKey | None = None, wait: bool = True, url: str = "", environment: dict[str, str] | None = None,
        kube_system: str = "",
    ) -> AsyncIterator[ReverseDialer]:  # fmt: skip
        """An agent's dialer, connected."""
        key = key or self.keys[cluster]
        identity = TunnelIdentity(
            self.uids[f"cluster/{cluster}"], key.public, key.sign, new_instance(), lambda: kube_system
        )
        hub = Hub(url or f"https://localhost:{self.port}", self.client_tls(), environment or {})
        dialer = ReverseDialer(hub, identity, upstream, lambda: authorization, idle=idle, sweeper=Sweeper(0.1))
        task = asyncio.create_task(dialer.run(), name="agent")
        try:
            async with asyncio.timeout(5):
                while wait and dialer.connected < idle:
                    assert not task.done(), task
                    await asyncio.sleep(0.01)
            yield dialer
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("localhost", self.port, ssl=self.client_tls())

    async def talk(self, data: bytes, *, timeout_s: float = 15.0) -> Reply:
        """Send, read to the end of the connection."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            async with asyncio.timeout(timeout_s):
                raw = await reader.read()
        finally:
            writer.close()
        return Reply(raw)

    async def get(self, path: str, token: str = "", *lines: str, method: str = "GET", body: bytes = b"") -> Reply:
        head = [f"{method} {path} HTTP/1.1", "Host: hub", "Connection: close", *lines]
        if token:
            head.append(f"Authorization: Bearer {token}")
        if body:
            head.append(f"Content-Length: {len(body)}")
        return await self.talk("\r\n".join(head).encode() + b"\r\n\r\n" + body)


class Reply:
    """What came back on one connection, the first response of it read."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.head, _, self.body = raw.partition(b"\r\n\r\n")
        self.status = int(self.head.split(b" ")[1]) if self.head else 0

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"])


def meta(name: str, uid: str = "") -> ObjectMeta:
    return ObjectMeta(
        name=name, uid=uid or secrets.token_hex(8), creation_timestamp=dt.datetime.now(dt.UTC), generation=1
    )


@asynccontextmanager
async def open_door(
    folder: Path, stores: dict[str, MemoryStore] | None = None, *, bus: Bus | None = None, **settings: object
) -> AsyncIterator[Door]:
    """`stores`: those of another door, to be a second process of the same hub."""
    certificate, key = make_pki(folder)
    private, public = generate_key_pair()
    (folder / "identity.key").write_bytes(private)
    (folder / "identity.pem").write_bytes(public)
    config = AuthProxyConfig(
        **{
            "nats_url": ["nats://127.0.0.1:1"],
            "identity_public_key": folder / "identity.pem",
            "identity_private_key": folder / "identity.key",
            "listen": "127.0.0.1:0",
            "listen_file": folder / "listen",
            "tls_certificate": certificate,
            "tls_key": key,
            "gateway_socket": folder / "gateway.sock",
            "audit_dir": folder / "audit",
            "audit_file": folder / "audit.log",
            "stop_timeout_s": 0.4,
            **settings,
        }
    )
    stores = stores or {
        bucket: MemoryStore(bucket)
        for bucket in ("identity", "authz", "cluster_controller", "project", "node_registry", "tunnels")
    }
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
        host = Host(
            "auth_proxy",
            config,
            bus or MemoryBus(),
            stores.__getitem__,
            Verifier.load(folder / "identity.pem", Host.now),
            tasks,
            stack,
        )
        with pytest.MonkeyPatch.context() as patch:
            made: list[Doorstep] = []

            class Seen(Doorstep):
                def __init__(self, *arguments: object) -> None:
                    super().__init__(*arguments)  # type: ignore[arg-type]
                    made.append(self)

            patch.setattr(agent_route, "Doorstep", Seen)
            await build(host)
        await host.finish_build()
        port = int((folder / "listen").read_text().rpartition(":")[2])
        try:
            yield Door(host, stores, tasks, port, certificate, folder / "audit.log", made[0]._tunnels, made[0])
        finally:
            host.begin_stop()
