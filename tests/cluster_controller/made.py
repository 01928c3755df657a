"""The service on the in-memory store and bus, wired as `main` wires it, with clocks that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.hazmat.primitives import serialization

from libs.common.access.bindings import BindingIndex
from libs.common.access.grants import Grants, compile_grants
from libs.common.access.principal import Principal, local_user_principal
from libs.common.apiserver.writer import ResourceWriter
from libs.common.bus.base import Message
from libs.common.bus.memory import MemoryBus
from libs.common.bus.wire import parse
from libs.common.contracts import messages as m
from libs.common.contracts import subjects
from libs.common.crypto import envelope
from libs.common.resources.access import (
    BindingScope,
    PolicyRule,
    RoleTemplate,
    RoleTemplateBinding,
    RoleTemplateBindingSpec,
    RoleTemplateSpec,
)
from libs.common.resources.clusters import Cluster, RegistrationToken
from libs.common.resources.identity import User
from libs.common.resources.meta import ObjectMeta
from libs.common.store.informer import Informer
from libs.common.store.memory import MemoryStore
from libs.common.store.objects import Objects, read
from services.agent.identity import make_key
from services.cluster_controller.agents import Agents
from services.cluster_controller.credentials import AgentIssuer
from services.cluster_controller.desired import DesiredSets
from services.cluster_controller.liveness import Liveness
from services.cluster_controller.reconciler import ClusterReconciler
from services.cluster_controller.registration import Registration
from services.cluster_controller.strategies import ClusterStrategy, RegistrationTokenStrategy
from services.cluster_controller.view import Clusters, Projects

TTL_S = 7 * 86_400
ALL = PolicyRule(verbs=["*"], api_groups=["*"], resources=["*"])


def role(name: str, scope: str = "cluster", *rules: PolicyRule, hub: list[PolicyRule] | None = None) -> RoleTemplate:
    spec = RoleTemplateSpec(scope=scope, rules=list(rules), hub_rules=hub or [])  # type: ignore[arg-type]
    return RoleTemplate(metadata=ObjectMeta(name=name, uid=f"uid-{name}"), spec=spec)


def user(name: str) -> User:
    made = User(metadata=ObjectMeta(name=name, uid=f"uid-{name}"))
    made.status.principal_id = local_user_principal(made.uid)
    return made


def bind(name: str, who: str, role_name: str, scope: BindingScope) -> RoleTemplateBinding:
    spec = RoleTemplateBindingSpec(principal=local_user_principal(f"uid-{who}"), role=role_name, scope=scope)
    return RoleTemplateBinding(metadata=ObjectMeta(name=name, uid=f"uid-{name}"), spec=spec)


ROLES = [
    role("admin", "global", hub=[ALL]),
    role("cluster-owner", "cluster", ALL, hub=[ALL]),
    role("cluster-viewer", "cluster", PolicyRule(verbs=["get", "list", "watch"], api_groups=[""], resources=["pods"])),
    role("project-member", "project", PolicyRule(verbs=["*"], api_groups=["apps"], resources=["deployments"])),
]


@dataclass
class Hub:
    """`moment` and `ticks` are the two clocks."""

    store: MemoryStore = field(default_factory=lambda: MemoryStore("cluster_controller"))
    projects_store: MemoryStore = field(default_factory=lambda: MemoryStore("project"))
    bus: MemoryBus = field(default_factory=MemoryBus)
    moment: datetime = field(default_factory=lambda: datetime.fromisoformat("2026-01-02T03:04:05+00:00"))
    ticks: float = 1000.0
    roles: list[RoleTemplate] = field(default_factory=lambda: list(ROLES))
    queued: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    said: list[m.Notice] = field(default_factory=list)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.ticks

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)
        self.ticks += seconds

    @property
    def current(self) -> Grants:
        clusters = [c for name in self.clusters.names() if (c := self.clusters.get(name)) is not None]
        bindings = [
            bind("ada-admin", "ada", "admin", BindingScope(all=True)),
            bind("olga-owner", "olga", "cluster-owner", BindingScope(cluster="edge")),
            bind("vic-viewer", "vic", "cluster-viewer", BindingScope(cluster="edge")),
        ]
        return compile_grants(
            self.roles, bindings, clusters, [user(n) for n in ("ada", "olga", "vic", "nobody")], self.moment
        )

    def wire(self) -> None:
        private, public = envelope.generate_key_pair()
        self.signer = envelope.Signer(serialization.load_pem_private_key(private, None), self.now)  # type: ignore[arg-type]
        verifier = envelope.Verifier(serialization.load_pem_public_key(public), self.now)  # type: ignore[arg-type]
        self.informer = Informer(self.store)
        self.clusters = Clusters(self.informer)
        self.tokens: Objects[RegistrationToken] = Objects(self.informer, RegistrationToken)
        self.issuer = AgentIssuer(lambda uid, key, ttl: f"jwt:{uid}:{key}:{ttl}", TTL_S, self.now)
        self.liveness = Liveness(self.ticks)
        self.registration = Registration(self.store, self.tokens, verifier, self, self.issuer, self.now)
        self.project_informer = Informer(self.projects_store)
        self.projects = Projects(self.project_informer)
        self.desired = DesiredSets(self, self.projects)
        self.agents = Agents(
            self.store,
            self.clusters,
            self.desired,
            self.issuer,
            self.liveness,
            self.queued.append,
            self.now,
            self.monotonic,
        )
        self.reconciler = ClusterReconciler(
            self.store, self.clusters, self.tokens, self.desired, self.liveness, self.bus, self.now, self.monotonic
        )
        strategies = {"clusters": ClusterStrategy(BindingIndex()), "registrationtokens": RegistrationTokenStrategy()}
        self.writer = ResourceWriter(self.store, strategies, verifier, self, self.now)

    # ── what people and agents do ──

    def sealed(self, name: str) -> str:
        return self.signer.seal(
            Principal(user=name, user_uid=f"uid-{name}", principal_id=local_user_principal(f"uid-{name}"))
        )

    async def write(self, who: str, verb: str, name: str, body: object = None, **more: object) -> m.ResourceWriteReply:
        request = m.ResourceWrite(identity=self.sealed(who), verb=verb, plural="clusters", name=name, body=body, **more)  # type: ignore[arg-type]
        reply = await self.writer.handle(request)
        await self.settle()
        return reply

    async def create(self, name: str = "edge", who: str = "ada") -> Cluster:
        body = {"apiVersion": "management.herdsman.dev/v1", "kind": "Cluster", "metadata": {"name": name}}
        await self.write(who, "create", "", body)
        return await read(self.store, Cluster, name)

    async def issue(self, name: str = "edge", who: str = "ada", ttl_s: int = 3600) -> str:
        issued = await self.registration.handle_issue(
            m.RegistrationIssue(identity=self.sealed(who), cluster=name, ttl_s=ttl_s)
        )
        await self.settle()
        return issued.token

    async def register(self, token: str, public_key: str = "") -> m.AgentCredential:
        key = public_key or make_key()[1]
        credential = await self.registration.handle_register(m.AgentRegistration(token=token, public_key=key))
        await self.settle()
        return credential

    async def beat(self, uid: str, **fields: object) -> None:
        heartbeat = m.Heartbeat(**{"agent_version": "0.1.0", "kubernetes_version": "v1.36.3", "api_server_healthy": True,
                                   "node_count": 3, "tunnels": 4, **fields})  # type: ignore[arg-type] # fmt: skip
        await self.agents.listen_heartbeat(heartbeat, said(uid, subjects.heartbeat(uid)))

    async def reconcile(self, name: str = "edge") -> object:
        outcome = await self.reconciler.reconcile(name)
        await self.settle()
        return outcome

    async def cluster(self, name: str = "edge") -> Cluster:
        return await read(self.store, Cluster, name)

    async def settle(self) -> None:
        """Let the informer catch up."""
        await self.informer.wait_revision(self.store._revision)
        await self.project_informer.wait_revision(self.projects_store._revision)


def said(uid: str, subject: str = "") -> Message:
    return Message(subject or f"up.{uid}.rpc", b"", {}, (uid,))


@asynccontextmanager
async def started_hub() -> AsyncIterator[Hub]:
    hub = Hub()
    hub.wire()
    followers = [asyncio.create_task(informer.run()) for informer in (hub.informer, hub.project_informer)]
    try:
        await hub.informer.synced.wait()
        await hub.project_informer.synced.wait()

        async def hear(message: Message) -> None:
            hub.notices.append(message.subject)
            hub.said.append(parse(m.Notice, message.data))

        async with hub.bus.listen("down.*.notify", hear):
            yield hub
    finally:
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
