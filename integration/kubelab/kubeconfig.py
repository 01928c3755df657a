"""Kubeconfig documents: the administrator's, which people take away, and those of the cluster's own components.

Called by `run`. Certificates are written into the document, so that the file alone is enough to reach the cluster.
"""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from integration.kubelab import pki


def render_kubeconfig(cluster: str, server: str, folder: Path, identity: str) -> str:
    """A kubeconfig for the client certificate `identity` of the PKI in `folder`."""
    context = f"kubelab-{cluster}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": context,
                "cluster": {
                    "server": server,
                    "certificate-authority-data": _embedded(pki.certificate_path(folder, pki.CLUSTER_CA)),
                },
            }
        ],
        "users": [
            {
                "name": f"{context}-{identity}",
                "user": {
                    "client-certificate-data": _embedded(pki.certificate_path(folder, identity)),
                    "client-key-data": _embedded(pki.key_path(folder, identity)),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": f"{context}-{identity}"}}],
        "current-context": context,
    }
    return yaml.safe_dump(document, sort_keys=False)


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
