"""The import manifest: what an agent needs in the cluster that it brings in, and why it needs each right. Pure.

Every object carries the agent's labels, by which it removes itself when the cluster leaves the hub.
"""

from __future__ import annotations

import hashlib
from typing import Any

import yaml

NAMESPACE = "herdsman-system"
NAME = "herdsman-agent"
REGISTRATION_SECRET = "herdsman-agent-registration"  # noqa: S105 - the name of a Secret
CONFIG = "herdsman-agent-config"
LABELS = {"app.kubernetes.io/managed-by": "herdsman", "management.herdsman.dev/part": "agent"}
_SELECTOR = {"app.kubernetes.io/name": NAME}
_USER_ID = 65532
_HEALTH_PORT = 8686

RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "Every call of a person is made under their name and groups, or under the user or service account that this cluster itself lets them be.",
        {"apiGroups": [""], "resources": ["users", "groups", "serviceaccounts"], "verbs": ["impersonate"]},
    ),
    (
        "Uids and extras: who really calls, for the cluster's own audit log. RBAC has no pattern for extras of any key; the group has nothing else.",
        {"apiGroups": ["authentication.k8s.io"], "resources": ["*"], "verbs": ["impersonate"]},
    ),
    (
        "Roles of the hub are kept applied here, bound to the hub's groups only; escalate and bind: it holds few rights itself.",
        {
            "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["clusterroles", "clusterrolebindings", "roles", "rolebindings"],
            "verbs": ["get", "list", "watch", "create", "update", "patch", "delete", "escalate", "bind"],
        },
    ),
    (
        "Nodes are shown in the hub with their condition.",
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
    ),
    (
        "Namespaces are grouped into projects: made where a project says so, and labelled; none but its own is ever deleted.",
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch", "create", "patch"]},
    ),
    (
        "A project's namespaces are kept within its quota and limits.",
        {
            "apiGroups": [""],
            "resources": ["resourcequotas", "limitranges"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
    ),
    (
        "A project that is isolated is reached from its own namespaces alone.",
        {
            "apiGroups": ["networking.k8s.io"],
            "resources": ["networkpolicies"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
    ),
    (
        "Policies of the hub are kept applied here, judged by the API server itself. No right to any webhook.",
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
            "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        },
    ),
    (
        "When the cluster leaves the hub, the agent removes its own namespace last, and with it itself.",
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": [NAMESPACE], "verbs": ["delete"]},
    ),
    ("The health of the API server is shown in the hub.", {"nonResourceURLs": ["/readyz", "/livez", "/version"], "verbs": ["get"]}),
)  # fmt: skip

_OWN_RULES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "The agent keeps its key and its last orders in Secrets of its own namespace, and in no other.",
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "create", "update", "patch", "delete"]},
    ),
)


def render_manifest(*, hub: str, ca: str, image: str, cluster: str, token: str) -> str:
    """All objects as one YAML text, in the order in which they must be made."""
    parts = [
        f"# Brings the cluster {cluster} into the hub at {hub}. The token in it works once: don't keep this file.",
        _dump(_object("v1", "Namespace", NAMESPACE, namespaced=False)),
        _dump(_object("v1", "ServiceAccount", NAME)),
        _role("ClusterRole", RULES),
        _dump(_binding("ClusterRoleBinding", "ClusterRole")),
        _role("Role", _OWN_RULES),
        _dump(_binding("RoleBinding", "Role")),
        "# The one-time registration token.\n"
        + _dump({**_object("v1", "Secret", REGISTRATION_SECRET), "type": "Opaque", "stringData": {"token": token}}),
        "# Where the hub is, and the certificate authority by which the agent knows it.\n"
        + _dump({**_object("v1", "ConfigMap", CONFIG), "data": {"hub": hub, "cluster": cluster, "ca.crt": ca}}),
        _dump(_deployment(image, hashlib.sha256(f"{hub}\n{ca}\n{token}".encode()).hexdigest())),
    ]
    return "\n---\n".join(part.rstrip("\n") for part in parts) + "\n"


def _object(api_version: str, kind: str, name: str, *, namespaced: bool = True) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if namespaced:
        metadata["namespace"] = NAMESPACE
    return {"apiVersion": api_version, "kind": kind, "metadata": {**metadata, "labels": dict(LABELS)}}


def _role(kind: str, rules: tuple[tuple[str, dict[str, Any]], ...]) -> str:
    """A role with the reason of each right as a comment above it."""
    role = _object("rbac.authorization.k8s.io/v1", kind, NAME, namespaced=kind == "Role")
    lines = [_dump(role).rstrip("\n"), "rules:"]
    for why, rule in rules:
        lines.append(f"# {why}")
        lines.append(_dump([rule]).rstrip("\n"))
    return "\n".join(lines)


def _binding(kind: str, role_kind: str) -> dict[str, Any]:
    return {
        **_object("rbac.authorization.k8s.io/v1", kind, NAME, namespaced=kind == "RoleBinding"),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
    }


def _deployment(image: str, checksum: str) -> dict[str, Any]:
    """One replica: several would serve side by side, but each would also apply and report. `checksum`: a new token restarts it."""
    deployment = _object("apps/v1", "Deployment", NAME)
    mounts = [
        {"name": "config", "mountPath": "/etc/herdsman", "readOnly": True},
        {"name": "registration", "mountPath": "/var/run/herdsman", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside of the container
    ]
    container = {
        "name": "agent",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["run"],
        "env": [
            {"name": "HERDSMAN_HUB", "valueFrom": {"configMapKeyRef": {"name": CONFIG, "key": "hub"}}},
            {"name": "HERDSMAN_CLUSTER_NAME", "valueFrom": {"configMapKeyRef": {"name": CONFIG, "key": "cluster"}}},
            {"name": "HERDSMAN_CA_FILE", "value": "/etc/herdsman/ca.crt"},
            {"name": "HERDSMAN_REGISTRATION_TOKEN_FILE", "value": "/var/run/herdsman/token"},
            {"name": "HERDSMAN_HEALTH_LISTEN", "value": f":{_HEALTH_PORT}"},
        ],
        "ports": [{"name": "health", "containerPort": _HEALTH_PORT}],
        # Ready: the hub can reach the cluster through it. Alive is less: a hub that is away is no reason for a restart.
        "startupProbe": {**_probe("/healthz"), "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {**_probe("/healthz"), "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 3},
        "readinessProbe": {**_probe("/readyz"), "periodSeconds": 5, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "192Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }  # fmt: skip
    pod_spec = {
        "serviceAccountName": NAME,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": _USER_ID, "runAsGroup": _USER_ID, "fsGroup": _USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 10,
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": CONFIG}},
            {"name": "registration", "secret": {"secretName": REGISTRATION_SECRET, "optional": True}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}},
        ],
    }  # fmt: skip
    deployment["spec"] = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": dict(_SELECTOR)},
        "template": {
            "metadata": {
                "labels": {**LABELS, **_SELECTOR},
                "annotations": {"management.herdsman.dev/config": checksum},
            },
            "spec": pod_spec,
        },
    }
    return deployment


def _probe(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": "health"}}


def _dump(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=1000, default_flow_style=False)
