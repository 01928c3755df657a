"""The kubeconfig file that the hub hands out, and the import manifest's address and command. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import yaml

HUB_CONTEXT = "herdsman"


def render_kubeconfig(
    public_url: str, ca: str, user: str, token: str, clusters: Sequence[str], *, with_hub: bool
) -> str:
    """One context for each cluster, named as the cluster, and `herdsman` for the hub; the first one is current. An empty token leaves it out."""
    contexts = [HUB_CONTEXT] if with_hub else []
    contexts += [cluster for cluster in clusters if cluster != HUB_CONTEXT]
    login = f"{HUB_CONTEXT}-{user}"
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": c, "cluster": _cluster(public_url, ca, c, hub=with_hub and c == HUB_CONTEXT)} for c in contexts
        ],
        "users": [{"name": login, "user": {"token": token} if token else {}}],
        "contexts": [{"name": c, "context": {"cluster": c, "user": login}} for c in contexts],
        "current-context": contexts[0] if contexts else "",
    }
    return yaml.safe_dump(document, sort_keys=False, width=1000)


def manifest_url(public_url: str, token: str) -> str:
    return f"{public_url.rstrip('/')}/v1/import/{quote(token, safe='')}.yaml"


def import_command(url: str, ca: str) -> str:
    """What a person runs against the cluster. With a CA of our own, the hub is trusted by that CA and by nothing weaker."""
    if not ca:
        return f"kubectl apply -f '{url}'"
    encoded = base64.b64encode(ca.encode()).decode()
    return f"curl -fsS --cacert <(echo {encoded} | base64 -d) '{url}' | kubectl apply -f -"


def _cluster(public_url: str, ca: str, name: str, *, hub: bool) -> dict[str, str]:
    base = public_url.rstrip("/")
    entry = {"server": base if hub else f"{base}/k8s/clusters/{name}"}
    if ca:
        entry["certificate-authority-data"] = base64.b64encode(ca.encode()).decode()
    return entry
