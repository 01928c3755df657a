"""What the tests of the API machinery and of the gateway share: a signed caller, fixed grants, writers on a memory store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common.access.grants import Grants, compile_grants
from libs.common.access.principal import Principal, local_user_principal
from libs.common.apiserver.strategy import Strategy
from libs.common.apiserver.writer import ResourceWriter
from libs.common.contracts.messages import ResourceWrite, ResourceWriteReply, WriteOptions
from libs.common.crypto.envelope import Signer, Verifier
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.clusters import Cluster
from libs.common.resources.identity import User
from libs.common.store.memory import MemoryStore

Now = Callable[[], datetime]


class FixedGrants:
    def __init__(self, grants: Grants) -> None:
        self.current = grants


class Keys:
    def __init__(self, now: Now) -> None:
        key = Ed25519PrivateKey.generate()
        self.signer, self.verifier = Signer(key, now), Verifier(key.public_key(), now)


def make_user(name: str, *, enabled: bool = True) -> User:
    uid = f"uid-{name}"
    return User.model_validate(
        {
            "metadata": {"name": name, "uid": uid},
            "spec": {"enabled": enabled},
            "status": {"principalId": local_user_principal(uid)},
        }
    )


def make_principal(name: str, **more: Any) -> Principal:
    return Principal(user=name, user_uid=f"uid-{name}", principal_id=local_user_principal(f"uid-{name}"), **more)


def make_role(name: str, scope: str, hub_rules: list[dict[str, Any]]) -> RoleTemplate:
    return RoleTemplate.model_validate(
        {"metadata": {"name": name, "uid": name}, "spec": {"scope": scope, "hubRules": hub_rules}}
    )


def make_binding(user: str, role: str, scope: Mapping[str, Any]) -> RoleTemplateBinding:
    spec = {"principal": local_user_principal(f"uid-{user}"), "user": user, "role": role, "scope": dict(scope)}
    return RoleTemplateBinding.model_validate(
        {"metadata": {"name": f"{user}-{role}", "uid": f"{user}-{role}"}, "spec": spec}
    )


def make_cluster(name: str) -> Cluster:
    return Cluster.model_validate({"metadata": {"name": name, "uid": f"uid-{name}"}})


ADMIN_ROLE = make_role("admin", "global", [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])
OWNER_ROLE = make_role(
    "cluster-owner", "cluster",
    [
        {"verbs": ["get", "list", "watch", "update", "patch", "delete"], "apiGroups": ["management.herdsman.dev"], "resources": ["clusters", "nodes"]},
        {"verbs": ["*"], "apiGroups": ["management.herdsman.dev"], "resources": ["roletemplatebindings", "clusters/registration"]},
    ],
)  # fmt: skip


def make_grants(
    now: datetime, users: tuple[str, ...] = ("root", "ann", "bob"), clusters: tuple[str, ...] = ("c1", "c2")
) -> Grants:
    """root may everything, ann owns cluster c1, bob has no role."""
    bindings = [
        make_binding("root", "admin", {"global": True}),
        make_binding("root", "cluster-owner", {"global": True}),
        make_binding("ann", "cluster-owner", {"cluster": "c1"}),
    ]
    return compile_grants(
        [ADMIN_ROLE, OWNER_ROLE], bindings, [make_cluster(c) for c in clusters], [make_user(u) for u in users], now
    )


class Writing:
    """A ResourceWriter on a memory store, and short ways to call it."""

    def __init__(self, now: Now, strategies: Mapping[str, Strategy[Any]], grants: Grants | None = None) -> None:
        self.keys = Keys(now)
        self.store = MemoryStore("test")
        self.writer = ResourceWriter(
            self.store, strategies, self.keys.verifier, FixedGrants(grants or make_grants(now())), now
        )

    async def write(
        self,
        verb: str,
        plural: str,
        name: str = "",
        body: Any = None,
        *,
        by: str | Principal = "root",
        sub: str = "",
        patch: str | None = None,
        **options: Any,
    ) -> ResourceWriteReply:
        principal = make_principal(by) if isinstance(by, str) else by
        return await self.writer.handle(
            ResourceWrite.model_validate(
                {"identity": self.keys.signer.seal(principal), "verb": verb, "plural": plural, "name": name, "subresource": sub,
                 "patch_type": patch, "body": body, "options": WriteOptions(**options)}
            )
        )  # fmt: skip
