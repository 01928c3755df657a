"""Kubernetes' own sample API server, running beside a full cluster and registered there as an aggregated API.

The API server reaches it as it reaches any: by an APIService, its Service and the endpoints of that, with the caller in `X-Remote-*`
headers. It stores in the cluster's etcd, and its audit log says whom it saw.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from integration.harness.hub import free_port
from integration.kubelab.cluster import Cluster
from integration.kubelab.kubectl import kubectl
from integration.kubelab.paths import read_json
from integration.kubelab.pki import certificate_path, key_path

GROUP = "wardle.example.com"
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True)
class Extension:
    audit_log: Path

    def callers(self, verb: str, resource: str) -> list[dict[str, Any]]:
        """The users of the calls that it wrote down, oldest first."""
        events = [json.loads(line) for line in self.audit_log.read_text(encoding="utf-8").splitlines()]
        return [e["user"] for e in events if e["verb"] == verb and e.get("objectRef", {}).get("resource") == resource]


def objects(address: str, port: int) -> list[dict[str, Any]]:
    """What registers it."""
    name = {"name": "sample", "namespace": "default"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": {"ports": [{"port": 443, "targetPort": port}]}},
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {**name, "labels": {"kubernetes.io/service-name": "sample"}},
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"v1alpha1.{GROUP}"},
            "spec": {
                "group": GROUP, "version": "v1alpha1", "service": {**name, "port": 443}, "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 1000, "versionPriority": 15,
            },
        },
    ]  # fmt: skip


@asynccontextmanager
async def run_extension(program: Path, cluster: Cluster, folder: Path) -> AsyncIterator[Extension]:
    """The server, registered and available; everything is taken away again."""
    port = free_port()
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump(_POLICY), encoding="utf-8")
    found = Extension(folder / "extension-audit.log")
    pki = cluster.layout.pki
    etcd = read_json(cluster.layout.ports_file)["etcd-client"]
    command = [
        str(program), "sample-apiserver", f"--bind-address={cluster.host_address}", f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates'}", f"--etcd-servers=https://127.0.0.1:{etcd}",
        f"--etcd-cafile={certificate_path(pki, 'etcd-ca')}", f"--etcd-certfile={certificate_path(pki, 'etcd-client')}",
        f"--etcd-keyfile={key_path(pki, 'etcd-client')}", f"--kubeconfig={cluster.kubeconfig}",
        f"--authentication-kubeconfig={cluster.kubeconfig}", f"--authorization-kubeconfig={cluster.kubeconfig}",
        f"--audit-policy-file={policy}", f"--audit-log-path={found.audit_log}", "--audit-log-mode=blocking",
    ]  # fmt: skip
    log = (folder / "server.log").open("wb")
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log)
    registered = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects(cluster.host_address, port)}).encode()
    try:
        made = await kubectl(cluster.kubeconfig, "apply", "-f", "-", stdin=registered)
        assert made.code == 0, made.err
        ready = await kubectl(
            cluster.kubeconfig, "wait", "--for=condition=Available", f"apiservice/v1alpha1.{GROUP}", "--timeout=60s", timeout_s=70
        )  # fmt: skip
        assert ready.code == 0, f"{ready.err}{(folder / 'server.log').read_text(errors='replace')[-2000:]}"
        yield found
    finally:
        await kubectl(cluster.kubeconfig, "delete", "-f", "-", "--wait=false", stdin=registered)
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(90):
            await process.wait()
        log.close()
