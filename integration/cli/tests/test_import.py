"""`herdsman cluster import --kubeconfig`: the manifest reaches a real API server, as often as one likes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from integration.kubelab.cluster import Cluster
from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.kube.kubeconfig import load_kubeconfig
from services.cli.cluster_import import _apply, parse_manifest

pytestmark = [pytest.mark.kubelab, pytest.mark.timeout(180)]

MANIFEST = b"""
apiVersion: v1
kind: Namespace
metadata: {name: herdsman-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: herdsman-agent, namespace: herdsman-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "herdsman:agent"}
rules: [{apiGroups: [""], resources: [nodes], verbs: [list]}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: hub, namespace: herdsman-system}
data: {url: "https://hub.example"}
"""


async def test_a_manifest_is_applied_in_order_again_and_again():
    with tempfile.TemporaryDirectory(prefix="cli-") as folder:
        cluster = await Cluster.up("import", Path(folder), minimal=True)
        try:
            for _ in range(2):
                client = KubeClient(load_kubeconfig([cluster.kubeconfig]), user_agent="test")
                assert await _apply(parse_manifest(MANIFEST), client) == [
                    "Namespace/herdsman-system", "ServiceAccount/herdsman-agent", "ClusterRole/herdsman:agent", "ConfigMap/hub",
                ]  # fmt: skip
            async with KubeClient(load_kubeconfig([cluster.kubeconfig]), user_agent="test") as client:
                stored = await client.get("/api/v1/namespaces/herdsman-system/configmaps/hub")
                assert stored["data"] == {"url": "https://hub.example"}
            broken = parse_manifest(MANIFEST + b"---\napiVersion: example.com/v1\nkind: Ghost\nmetadata: {name: x}\n")
            with pytest.raises(errors.NotFound, match="4 of 5 objects are there"):
                await _apply(broken, KubeClient(load_kubeconfig([cluster.kubeconfig]), user_agent="test"))
        finally:
            await cluster.down()
