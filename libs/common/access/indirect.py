"""Rights by which somebody comes to a Secret without one on Secrets. Data, for `explain`; they are the well-known ones, and not all there are.

Sources: Kubernetes, "Role Based Access Control Good Practices" (privilege escalation risks), and the API conventions for what PATCH answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from libs.common.access.rules import Right

REACH = "reach"
"""The verb of the question "who can reach this Secret": no verb of Kubernetes."""

_NO_NAMESPACE = frozenset({
    "apiservices", "certificatesigningrequests", "clusterrolebindings", "clusterroles", "componentstatuses", "csidrivers", "csinodes",
    "customresourcedefinitions", "flowschemas", "groups", "ingressclasses", "mutatingwebhookconfigurations", "nodes", "persistentvolumes",
    "priorityclasses", "prioritylevelconfigurations", "runtimeclasses", "selfsubjectaccessreviews", "selfsubjectreviews",
    "selfsubjectrulesreviews", "storageclasses", "subjectaccessreviews", "tokenreviews", "users", "validatingadmissionpolicies",
    "validatingadmissionpolicybindings", "validatingwebhookconfigurations", "volumeattachments",
})  # fmt: skip
"""Kubernetes' own resources that are in no namespace."""


@dataclass(frozen=True, slots=True)
class WayToSecret:
    """One of the rights is enough. `how` "" = reads it."""

    how: str
    verbs: tuple[str, ...]
    resources: dict[str, tuple[str, ...]]
    """API group → resources."""

    def rights(self) -> Iterator[Right]:
        for group, names in self.resources.items():
            for name in names:
                for verb in self.verbs:
                    yield Right(verb, group, name)


WAYS_TO_A_SECRET = (
    # A patch that changes nothing is answered with the whole object.
    WayToSecret("", ("get", "list", "watch", "patch"), {"": ("secrets",)}),
    WayToSecret("runs pods that mount it", ("create",), {"": ("pods",)}),
    WayToSecret("runs pods that mount it", ("create", "update", "patch"), {
        "": ("replicationcontrollers",), "apps": ("daemonsets", "deployments", "replicasets", "statefulsets"),
        "batch": ("cronjobs", "jobs"),
    }),
    WayToSecret("enters pods that hold it", ("create", "get"), {"": ("pods/attach", "pods/exec")}),
    WayToSecret("enters pods that hold it", ("update", "patch"), {"": ("pods/ephemeralcontainers",)}),
    WayToSecret("enters pods through their node", ("create", "get"), {"": ("nodes/proxy",)}),
    WayToSecret("takes a service account's token", ("create",), {"": ("serviceaccounts/token",)}),
    WayToSecret("acts as somebody else", ("impersonate",), {"": ("groups", "serviceaccounts", "users")}),
    WayToSecret("gives itself a role", ("bind", "escalate"), {"rbac.authorization.k8s.io": ("clusterroles", "roles")}),
    WayToSecret("signs in as somebody else", ("update", "patch"), {"certificates.k8s.io": ("certificatesigningrequests/approval",)}),
    WayToSecret("sees or changes what others write", ("create", "update", "patch"), {
        "admissionregistration.k8s.io": ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"),
    }),
)  # fmt: skip


def is_in_namespaces(right: Right) -> bool:
    """Whether a role in a project can give it. Of resources that Kubernetes does not know itself, it may be so."""
    own = "." not in right.group or right.group.endswith(".k8s.io")
    return not (own and right.resource.partition("/")[0] in _NO_NAMESPACE)
