"""Namespaces of projects: made where the project says so, adorned with labels, released; owned and deleted never. Pure: values in, steps out.

The hub says which project claims a namespace by a `NamespaceClaim` in the project's part. It is no object of the cluster but an
order: a namespace holds people's work, so it must not become an object that goes with its part. What `apply` makes of the steps here
is a label of ours, an annotation with the project's uid, and what the project wants kept on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from libs.common.kube.objects import Document, content_hash, is_satisfied, labels_of
from services.agent.owned import AGENT_PART, APPLIED, MANAGED_BY, PART, is_owned, is_protected, part_label

CLAIM_VERSION, CLAIM_KIND = "management.herdsman.dev/v1", "NamespaceClaim"
PROJECT = "management.herdsman.dev/project"
"""Label with the project's name: what policies and filtered lists select by."""
PROJECT_UID = "management.herdsman.dev/project-uid"
"""Annotation: a namespace is that of one very project, not of another one of the same name."""
POD_SECURITY = "pod-security.kubernetes.io/enforce"
_RESERVED_DOMAINS = ("kubernetes.io", "k8s.io", "herdsman.dev")


@dataclass(frozen=True, slots=True)
class Claim:
    """`document` is the namespace as it is to be adorned; `part` a label value."""

    namespace: str
    part: str
    uid: str
    create: bool
    document: dict[str, Any] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Make:
    """Create the namespace, and adorn it."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Adorn:
    """Labels and annotations on the namespace that has this uid."""

    claim: Claim
    uid: str


@dataclass(frozen=True, slots=True)
class Release:
    """Take from a namespace what is ours on it. It stays, with all that is in it. `marks`: labels of ours, whoever set them."""

    namespace: str
    uid: str
    part: str
    marks: tuple[str, ...]


@dataclass(slots=True)
class Plan:
    """`blocked`: namespaces in which nothing may be applied now → why; `absent`: those of them that are waited for."""

    steps: list[Make | Adorn | Release] = field(default_factory=list)
    blocked: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)


def is_claim(document: Document) -> bool:
    return document.get("apiVersion") == CLAIM_VERSION and document.get("kind") == CLAIM_KIND


def is_order(document: Document) -> bool:
    """Whether a document of a part is no object of the cluster but something that the agent is told to do."""
    return document.get("apiVersion") == CLAIM_VERSION


def parse_claim(document: Document, part: str) -> Claim:
    """The claim that `part` (its name) makes."""
    name = str((document.get("metadata") or {}).get("name") or "")
    spec: Mapping[str, Any] = document.get("spec") or {}
    labels = {**(spec.get("labels") or {}), PROJECT: str(spec.get("project") or "")}
    if spec.get("podSecurity"):
        labels[POD_SECURITY] = str(spec["podSecurity"])
    annotations = {
        **(spec.get("annotations") or {}), PROJECT_UID: str(spec.get("projectUid") or ""), APPLIED: content_hash([document]),
    }  # fmt: skip
    adorned = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
    }
    return Claim(name, part_label(part), annotations[PROJECT_UID], bool(spec.get("create")), adorned)


def find_claim_refusal(document: Document) -> str:
    """Why the agent does not do what a claim asks for, although the hub does; empty = it does."""
    name = str((document.get("metadata") or {}).get("name") or "")
    spec: Mapping[str, Any] = document.get("spec") or {}
    if is_protected(name):
        return f'namespace "{name}" belongs to the cluster itself'
    if not (spec.get("project") and spec.get("projectUid")):
        return f'nobody is named who claims namespace "{name}"'
    for key in (*(spec.get("labels") or {}), *(spec.get("annotations") or {})):
        domain = str(key).partition("/")[0] if "/" in str(key) else ""
        if any(domain == reserved or domain.endswith(f".{reserved}") for reserved in _RESERVED_DOMAINS):
            return f'"{key}" on namespace "{name}" is not for a project to set'
    return ""


def diff_claims(
    claims: Iterable[Claim],
    namespaces: Mapping[str, Document],
    *,
    held: AbstractSet[str] = frozenset(),
    claimed: Iterable[str] = (),
) -> Plan:
    """The steps from `namespaces` (name → object) to what is claimed.

    `held`: names of those that hold objects of ours; `claimed`: names that others claim, not to be released.
    """
    plan = Plan()
    names = set(claimed)
    for claim in sorted(claims, key=lambda c: (c.namespace, c.part)):
        if claim.namespace in names:
            continue
        names.add(claim.namespace)
        _plan(plan, claim, namespaces.get(claim.namespace), held)
    for name, found in sorted(namespaces.items()):
        marks = find_marks(found)
        if marks and name not in names:
            project = labels_of(found).get(PROJECT, "")
            plan.steps.append(Release(name, _uid(found), part_label(f"projects/{project}"), marks))
    plan.steps.sort(key=lambda step: not isinstance(step, Release))
    return plan


def find_marks(found: Document) -> tuple[str, ...]:
    """The labels and annotations of a namespace that say that it is ours; () = it is not, or it is the agent's own."""
    marks = [PROJECT] if PROJECT in labels_of(found) else []
    annotations = (found.get("metadata") or {}).get("annotations") or {}
    marks += [key for key in (PROJECT_UID, APPLIED) if key in annotations]
    if is_owned(found) and labels_of(found)[PART] != AGENT_PART:
        marks += [MANAGED_BY, PART]
    return tuple(marks)


def is_adorned(claim: Claim, found: Document) -> bool:
    return is_satisfied(found.get("metadata"), claim.document["metadata"])


def _plan(plan: Plan, claim: Claim, found: Document | None, held: AbstractSet[str]) -> None:
    name = claim.namespace
    if found is None and claim.create:
        plan.steps.append(Make(claim))
        return
    if found is None:
        plan.absent.add(name)
        plan.blocked[name] = say_absent(name)
        return
    metadata = found.get("metadata") or {}
    if metadata.get("deletionTimestamp"):
        plan.absent.add(name)
        plan.blocked[name] = f'namespace "{name}" is being deleted in the cluster'
        return
    if claim.create and not _is_of_project(claim, found, held):
        # A namespace is never adopted by the way: whoever made it did not ask for the project's members in it.
        plan.blocked[name] = (
            f'namespace "{name}" was in the cluster before and is not this project\'s: it is left alone; to adopt it, '
            "name it in the project without create"
        )
        return
    if not is_adorned(claim, found):
        plan.steps.append(Adorn(claim, _uid(found)))


def _is_of_project(claim: Claim, found: Document, held: AbstractSet[str]) -> bool:
    """Whether a namespace that is there was made for this project; one whose marks somebody took away still holds what we put in."""
    uid = ((found.get("metadata") or {}).get("annotations") or {}).get(PROJECT_UID)
    if uid is not None:
        return bool(uid == claim.uid)
    return labels_of(found).get(PROJECT) == claim.document["metadata"]["labels"][PROJECT] or claim.namespace in held


def say_absent(namespace: str) -> str:
    return f'namespace "{namespace}" is not in the cluster: what belongs into it is applied as soon as it is made'


def _uid(found: Document) -> str:
    return str((found.get("metadata") or {}).get("uid") or "")
