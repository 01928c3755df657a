"""The pure checks of a project's namespaces: values in, causes out. `policies` has those of what the namespaces are kept to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from libs.common.apiserver import validate
from libs.common.errors import Cause, Invalid
from libs.common.resources.meta import check_label
from libs.common.resources.projects import Project, ProjectNamespace
from services.project.system import is_system

Key = tuple[str, str]
MAX_CHANGES = 400
"""Namespaces that one write puts in or takes out: each is a write of its own in the store's batch."""


def key_of(namespace: ProjectNamespace) -> Key:
    return namespace.cluster, namespace.namespace


def parse_key(project: str, cluster: str, namespace: str) -> Key:
    """What a method was asked for. Raises Invalid for what can be no name."""
    for field, value in (("project", project), ("cluster", cluster), ("namespace", namespace)):
        try:
            check_label(value)
        except ValueError as exc:
            raise validate.invalid_field(Project, project, field, value, str(exc)) from exc
    return cluster, namespace


def find_added(old: Project | None, new: Project) -> list[ProjectNamespace]:
    """Namespaces that `new` has and `old` has not, in the order of `new`."""
    before = {key_of(n) for n in old.spec.namespaces} if old is not None else set()
    return [n for n in new.spec.namespaces if key_of(n) not in before]


def find_removed(old: Project, new: Project) -> list[ProjectNamespace]:
    return find_added(new, old)


def settle(old: Project | None, new: Project, clusters: Mapping[str, str]) -> list[str]:
    """Write back what is settled when a namespace comes in, whatever somebody wrote: whether the hub made it or found it, and of which
    cluster it is, by uid. `clusters`: name → uid. Returns what was asked in vain, for people.
    """
    before = {key_of(n): n for n in old.spec.namespaces} if old is not None else {}
    told = []
    for index, namespace in enumerate(new.spec.namespaces):
        entry = before.get(key_of(namespace))
        if entry is not None and namespace.create and not entry.create:
            told.append(
                f"spec.namespaces[{index}].create: the namespace was there when it came into the project; it stays false"
            )
        namespace.create = entry.create if entry is not None else namespace.create
        here = clusters.get(namespace.cluster, "")
        namespace.cluster_uid = (entry.cluster_uid if entry is not None else "") or here
    return told


def check_namespaces(
    new: Project,
    taken: Mapping[Key, str],
    clusters: Mapping[str, str],
    added: set[Key],
    patterns: Callable[[str], tuple[str, ...]],
) -> list[Cause]:
    """Each once, in no other project; those that are added exist in clusters that are here and are not the cluster's own.

    `taken`: namespaces of other projects, with what the caller may be told of the project. `patterns`: name of a cluster → its
    system namespaces.
    """
    seen: set[Key] = set()
    causes = []
    for index, namespace in enumerate(new.spec.namespaces):
        path, key = f"spec.namespaces[{index}]", key_of(namespace)
        label = f"{namespace.cluster}/{namespace.namespace}"
        if key in seen:
            causes.append(Cause(path, f'Duplicate value: "{label}"', "FieldValueDuplicate"))
        elif key in taken:
            causes.append(_forbidden(path, f"namespace {label} is in {taken[key]}: move it from there"))
        elif key in added and namespace.cluster not in clusters:
            causes.append(Cause(f"{path}.cluster", f'Not found: "{namespace.cluster}"', "FieldValueNotFound"))
        elif key in added and is_system(namespace.namespace, patterns(namespace.cluster)):
            causes.append(
                _forbidden(f"{path}.namespace", f"namespace {namespace.namespace} belongs to the cluster itself")
            )
        seen.add(key)
    return causes


POD_SECURITY = "pod-security.kubernetes.io/enforce"


def check_kept(project: Project, namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str]) -> None:
    """What is wanted on a new namespace is what the project keeps on all of its. Raises Invalid: nothing is dropped without a word."""
    spec = project.spec
    kept_labels = {**spec.labels, **({POD_SECURITY: spec.pod_security} if spec.pod_security else {})}
    causes = [
        _forbidden(
            f"metadata.{field}[{key}]", f'project "{project.name}" does not keep it on its namespaces: leave it out'
        )
        for field, wanted, kept in (("labels", labels, kept_labels), ("annotations", annotations, spec.annotations))
        for key, value in sorted(wanted.items())
        if kept.get(key) != value
    ]
    if causes:
        told = "; ".join(f"{c.field}: {c.message}" for c in causes[:5])
        raise Invalid(f'Namespace "{namespace}" is invalid: {told}', kind="Namespace", name=namespace, causes=causes)


def _forbidden(path: str, why: str) -> Cause:
    return Cause(path, f"Forbidden: {why}", "FieldValueForbidden")
