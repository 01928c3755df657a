"""What the tests of `--as` share: an agent with exactly the rights that the import manifest gives it, and a person with few of her own."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from integration.kubelab.cluster import Cluster
from integration.kubelab.kubectl import Answer, kubectl
from integration.proxy.tests.conftest import Way, write_kubeconfig
from libs.common.relay.pool import Address
from services.gateway.manifest import NAME, NAMESPACE, render_manifest
from tests.auth_proxy.door import open_door

HELPER = "herdsman:cluster:prod:helper"
RIGHTS = f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: helper}}
rules:
- {{apiGroups: [""], resources: [users], resourceNames: [jane, herdsman:bob], verbs: [impersonate]}}
- {{apiGroups: [""], resources: [groups], resourceNames: [readers, system:masters], verbs: [impersonate]}}
- {{apiGroups: [authentication.k8s.io], resources: [uids], resourceNames: ["17"], verbs: [impersonate]}}
- {{apiGroups: [authentication.k8s.io], resources: [userextras/scopes, userextras/example.com/why], resourceNames: [view, on call], verbs: [impersonate]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: helper}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: helper}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "{HELPER}"}}]
---
apiVersion: v1
kind: Namespace
metadata: {{name: robots}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: builder, namespace: robots}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: as-builder, namespace: robots}}
rules:
- {{apiGroups: [""], resources: [serviceaccounts], verbs: [impersonate]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: as-builder, namespace: robots}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: as-builder}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "{HELPER}"}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: janes, namespace: default}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: readers, namespace: robots}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: readers}}]
"""


async def as_admin(cluster: Cluster, *arguments: str, stdin: str = "") -> Answer:
    """kubectl as the cluster's own administrator; must succeed."""
    answer = await kubectl(cluster.kubeconfig, *arguments, stdin=stdin.encode())
    assert answer.code == 0, (arguments, answer.err)
    return answer


async def agent_token(cluster: Cluster) -> str:
    """A token of the agent's account, with the rights that the import manifest gives it."""
    text = render_manifest(hub="https://hub.example:8443", ca="CA", image="agent:1", cluster="prod", token="hmr_a_b")
    kept = [d for d in yaml.safe_load_all(text) if d and d["kind"] in RBAC_AND_ACCOUNT]
    await as_admin(cluster, "apply", "-f", "-", stdin=yaml.safe_dump_all(kept))
    await as_admin(cluster, "apply", "-f", "-", stdin=RIGHTS)
    return (await as_admin(cluster, "create", "token", NAME, "-n", NAMESPACE)).out.strip()


RBAC_AND_ACCOUNT = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def tls_address(cluster: Cluster) -> Address:
    """The API server, with no client certificate to show."""
    parts = urlsplit(cluster.server)
    assert parts.hostname
    assert parts.port
    context = ssl.create_default_context(cafile=str(cluster.ca_file))
    return Address("the API server", parts.hostname, parts.port, tls=context, server_hostname=parts.hostname)


def write_direct(folder: Path, server: str, ca: bytes, user: dict[str, str]) -> None:
    """A kubeconfig for the front door, put in place whole."""
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority-data": base64.b64encode(ca).decode()}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    fresh = folder / ".fresh"
    fresh.write_text(yaml.safe_dump(document))
    fresh.chmod(0o600)
    fresh.replace(folder / "prod.kubeconfig")


@asynccontextmanager
async def helpers_way(cluster: Cluster, token: str, folder: Path, *, direct: bool) -> AsyncIterator[Way]:
    """The way of ada, whose only role in the cluster is `helper`; through an agent or directly, with the agent's token either way."""
    (folder / "direct").mkdir(mode=0o700)
    if direct:
        write_direct(folder / "direct", cluster.server, cluster.ca_file.read_bytes(), {"token": token})
    async with open_door(folder, direct_clusters=folder / "direct", tunnel_wait_s=0.2) as door:
        person = await door.user("ada")
        await door.role("helper")
        await door.cluster("prod")
        await door.bind(person, "prod", "helper", name="adas")
        mine = await door.token(person)
        config = write_kubeconfig(folder / "kubeconfig", door, mine)
        address = tls_address(cluster)
        if direct:
            yield Way(door, cluster, None, mine, config)  # type: ignore[arg-type]
        else:
            async with door.agent("prod", lambda: address, f"Bearer {token}".encode(), idle=4) as agent:
                yield Way(door, cluster, agent, mine, config)


async def whoami(way: Way, *wish: str) -> dict[str, object]:
    """Who the API server says that a call with this wish is."""
    answer = await way.kubectl("auth", "whoami", "-o", "json", *wish)
    assert answer.code == 0, answer.err
    found: dict[str, object] = json.loads(answer.out)["status"]["userInfo"]
    return found
