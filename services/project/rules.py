"""The pure checks of projects: values in, causes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from libs.common.errors import Cause
from libs.common.resources.projects import Project, ProjectNamespace

RESERVED_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease", "herdsman-system"})
"""Whoever works in these works on the whole cluster: they belong to cluster owners, not to a project."""
Key = tuple[str, str]


def key_of(namespace: ProjectNamespace) -> Key:
    return namespace.cluster, namespace.namespace


def find_added(old: Project | None, new: Project) -> list[ProjectNamespace]:
    """Namespaces that `new` has and `old` has not, in the order of `new`."""
    before = {key_of(n) for n in old.spec.namespaces} if old is not None else set()
    return [n for n in new.spec.namespaces if key_of(n) not in before]


def find_removed(old: Project, new: Project) -> list[ProjectNamespace]:
    return find_added(new, old)


def check_namespaces(
    new: Project, others: Iterable[Project], clusters: Mapping[str, str], added: set[Key]
) -> list[Cause]:
    """Each once, in no other project; those that are added exist in clusters that are here and are not reserved."""
    taken = {key_of(n): p.name for p in others if p.name != new.name for n in p.spec.namespaces}
    seen: set[Key] = set()
    causes = []
    for index, namespace in enumerate(new.spec.namespaces):
        path, key = f"spec.namespaces[{index}]", key_of(namespace)
        label = f"{namespace.cluster}/{namespace.namespace}"
        if key in seen:
            causes.append(Cause(path, f'Duplicate value: "{label}"', "FieldValueDuplicate"))
        elif key in taken:
            why = f'namespace {label} is in project "{taken[key]}": take it out there first'
            causes.append(Cause(path, f"Forbidden: {why}", "FieldValueForbidden"))
        elif key in added and namespace.cluster not in clusters:
            causes.append(Cause(f"{path}.cluster", f'Not found: "{namespace.cluster}"', "FieldValueNotFound"))
        elif key in added and namespace.namespace in RESERVED_NAMESPACES:
            why = f"namespace {namespace.namespace} belongs to the cluster itself"
            causes.append(Cause(f"{path}.namespace", f"Forbidden: {why}", "FieldValueForbidden"))
        seen.add(key)
    return causes
