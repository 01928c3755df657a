"""What marks an object in the cluster as ours, and what the agent refuses to apply even when the hub asks. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from libs.common.access.principal import USER_PREFIX
from libs.common.kube.objects import Document, content_hash, labels_of
from libs.common.policies.names import BINDING, NAME_PREFIX, POLICY
from libs.common.policies.names import GROUP as ADMISSION

FIELD_MANAGER = "herdsman"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY_US = "herdsman"
PART = "management.herdsman.dev/part"
APPLIED = "management.herdsman.dev/applied"
"""Annotation with the hash of what was applied: tells that a field was dropped, which comparing fields cannot see."""
SELECTOR = f"{MANAGED_BY}={MANAGED_BY_US}"
AGENT_PART = "agent"
"""Part label of the agent's own objects (its namespace, account, rights): pruned by nobody, removed last when it detaches."""

RBAC_GROUP = "rbac.authorization.k8s.io"
RBAC = f"{RBAC_GROUP}/v1"
BINDING_KINDS = ("ClusterRoleBinding", "RoleBinding")
ROLE_KINDS = ("ClusterRole", "Role")
BASE_KINDS = tuple((RBAC, kind) for kind in (*BINDING_KINDS, *ROLE_KINDS))
"""Kinds that are looked through for things of ours even when the agent has forgotten that it ever made one."""

_PROTECTED_PREFIXES = ("kube-", "herdsman-")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def part_label(part: str) -> str:
    """The label value of a part's name; names that no label can hold get a short hash instead."""
    value = part.replace("/", ".")
    return value if _LABEL_VALUE.fullmatch(value) else "h-" + hashlib.sha256(part.encode()).hexdigest()[:40]


def mark(document: Document, part: str) -> dict[str, Any]:
    """The document as it is applied: with our labels and the hash of what the hub sent."""
    metadata: Mapping[str, Any] = document.get("metadata") or {}
    return {
        **document,
        "metadata": {
            **metadata,
            "labels": {**(metadata.get("labels") or {}), MANAGED_BY: MANAGED_BY_US, PART: part_label(part)},
            "annotations": {**(metadata.get("annotations") or {}), APPLIED: content_hash([document])},
        },
    }


def is_owned(document: Document) -> bool:
    """Whether an object carries both labels. One alone may be anybody's, and is never touched."""
    labels = labels_of(document)
    return labels.get(MANAGED_BY) == MANAGED_BY_US and PART in labels


def is_protected(namespace: str) -> bool:
    """Whether a namespace is the cluster's own or the hub's: whoever works in it works on the whole cluster."""
    return namespace.startswith(_PROTECTED_PREFIXES)


def is_label_ours(found: Document, label: str, manager: str = FIELD_MANAGER) -> bool:
    """Whether the value that this label has is the one that we applied as `manager`, by the object's managed fields."""
    fields = (found.get("metadata") or {}).get("managedFields") or ()
    return any(
        f.get("manager") == manager
        and f.get("operation") == "Apply"
        and f"f:{label}" in (((f.get("fieldsV1") or {}).get("f:metadata") or {}).get("f:labels") or {})
        for f in fields
    )


def without_managers(document: Document) -> dict[str, Any]:
    """The object without its managed fields, which are half of it, but for what says that its part's label is the one that we applied."""
    metadata = {key: value for key, value in (document.get("metadata") or {}).items() if key != "managedFields"}
    if is_label_ours(document, PART):
        fields: dict[str, Any] = {"f:metadata": {"f:labels": {f"f:{PART}": {}}}}
        metadata["managedFields"] = [{"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields}]
    return {**document, "metadata": metadata}


def find_refusal(document: Document) -> str:
    """Why this object must not be applied; empty = it may.

    A fault in the hub must not make somebody an administrator: a binding may only name groups that the front door
    alone can speak for and roles that the hub renders, nothing at all is put into namespaces of the cluster itself, and RBAC
    objects that are not called ours are not touched. Nor is a namespace ever an object of a part: what a part owns goes with it.
    """
    kind = document.get("kind")
    metadata: Mapping[str, Any] = document.get("metadata") or {}
    name = metadata.get("name", "")
    if document.get("apiVersion") == "v1" and kind == "Namespace":
        return f'Namespace "{name}" would be deleted with its part: namespaces are claimed'
    if is_protected(str(metadata.get("namespace") or "")):
        # Whatever it is: a quota or a policy there stops the cluster's own pods, a Secret there is the agent's key.
        return f'{kind} "{name}" is in namespace "{metadata["namespace"]}", which belongs to the cluster itself'
    group = str(document.get("apiVersion", "")).partition("/")[0]
    if group == ADMISSION:
        return _find_admission_refusal(document)
    if group != RBAC_GROUP:
        return ""
    if not str(name).startswith(USER_PREFIX):
        return f'{kind} "{name}" is not called {USER_PREFIX}…'
    role: Mapping[str, Any] = document.get("roleRef") or {}
    if kind in BINDING_KINDS and not (
        role.get("kind") == "ClusterRole" and str(role.get("name", "")).startswith(USER_PREFIX)
    ):
        return f'{kind} "{name}" binds {role.get("kind")} "{role.get("name")}", which is no ClusterRole called {USER_PREFIX}…'
    for subject in document.get("subjects") or () if kind in BINDING_KINDS else ():
        if subject.get("kind") != "Group" or not str(subject.get("name", "")).startswith(USER_PREFIX):
            return f'{kind} "{name}" binds {subject.get("kind")} "{subject.get("name")}", which is no group called {USER_PREFIX}…'
    return ""


def _find_admission_refusal(document: Document) -> str:
    """Policies are judged by the API server itself; a webhook would have every request depend on something of ours."""
    kind, name = document.get("kind"), str((document.get("metadata") or {}).get("name") or "")
    if kind not in (POLICY, BINDING):
        return f'{kind} "{name}" is no policy that the API server judges by itself'
    if not name.startswith(NAME_PREFIX):
        return f'{kind} "{name}" is not called {NAME_PREFIX}…'
    conditions = ((document.get("spec") or {}).get("matchConditions") or ()) if kind == POLICY else ()
    if kind == POLICY and not any(c.get("name") in ("not-herdsman", "trial") for c in conditions):
        return f'{kind} "{name}" would count for what the agent itself does'
    return ""
