"""Namespaces that belong to a cluster itself: whoever works in one works on the whole cluster, so none is ever in a project."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from libs.common.resources.clusters import Cluster

SYSTEM_NAMESPACES = (
    "default", "kube-*", "herdsman-*", "openshift", "openshift-*", "cattle-*", "rancher-*", "gke-*", "gmp-*", "aks-*",
    "amazon-cloudwatch", "amazon-guardduty", "azure-arc", "calico-*", "tigera-*", "gatekeeper-system", "kyverno", "istio-system",
    "linkerd", "cert-manager", "metallb-system", "longhorn-system", "rook-ceph", "olm", "flux-system", "argocd",
)  # fmt: skip
"""Names, and beginnings of names with `*`."""
ANNOTATION = "management.herdsman.dev/system-namespaces"
"""On a Cluster: more of them there, with commas or spaces between. Who may update the cluster writes it."""


def patterns_of(cluster: Cluster | None) -> tuple[str, ...]:
    """The patterns that count in a cluster: those of every cluster, and its own."""
    if cluster is None:
        return SYSTEM_NAMESPACES
    own = (cluster.metadata.annotations or {}).get(ANNOTATION, "")
    return (*SYSTEM_NAMESPACES, *own.replace(",", " ").split())


def is_system(namespace: str, patterns: Sequence[str] = SYSTEM_NAMESPACES) -> bool:
    return any(_fits(namespace, pattern) for pattern in patterns)


def _fits(namespace: str, pattern: str) -> bool:
    return namespace.startswith(pattern[:-1]) if pattern.endswith("*") else namespace == pattern


def system_of(clusters: Iterable[Cluster]) -> dict[str, tuple[str, ...]]:
    """Name of each cluster → its patterns."""
    return {cluster.name: patterns_of(cluster) for cluster in clusters}
