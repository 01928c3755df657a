"""From what is to what should be, as steps that are safe to stop after any of them. Pure: values in, steps out.

Order: bindings and roles that should not be go first, then those that say too much are narrowed, then everything else that
should not be goes, and only then is anything added. So at no moment does anybody hold an old and a new right together that
were not meant together, whatever the moment at which the agent dies. `apply` takes the steps. A namespace is never deleted: one
that is marked as ours is released.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from libs.common.kube.objects import Document, Ref, is_satisfied, labels_of, ref_of
from services.agent.claims import Adorn, Make, Release, find_marks
from services.agent.owned import BINDING_KINDS, PART, RBAC_GROUP, ROLE_KINDS, is_label_ours, mark, part_label
from services.agent.pod_security import Level, Unlevel
from services.agent.quantities import KINDS as QUANTITY_KINDS
from services.agent.quantities import normalise

_FIRST_KINDS = (
    "CustomResourceDefinition", "ServiceAccount", "ResourceQuota", "LimitRange", "NetworkPolicy", *ROLE_KINDS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Delete:
    ref: Ref
    uid: str
    part: str
    """Label value of the part that the object belongs to."""


@dataclass(frozen=True, slots=True)
class Apply:
    """`is_new`: nothing that is marked as ours has this name, but somebody else's object may.

    `moved_from`: it is all that it should be, but still marked as of the part with this label value.
    """

    ref: Ref
    document: dict[str, Any]
    part: str
    is_new: bool = False
    moved_from: str = ""


Step = Delete | Apply | Release | Make | Adorn | Level | Unlevel


def diff_parts(desired: Mapping[str, Sequence[Document]], actual: Mapping[Ref, Document]) -> list[Step]:
    """The steps from `actual` (everything that we own in the cluster) to `desired` (part name → its objects).

    An object that two parts want belongs to the part that comes first by name.
    """
    takes, gives = diff_objects(desired, actual)
    return [*takes, *gives]


def diff_objects(
    desired: Mapping[str, Sequence[Document]], actual: Mapping[Ref, Document], only: AbstractSet[str] | None = None
) -> tuple[list[Step], list[Step]]:
    """The same, those that take away apart from those that add. With `only`, `actual` is what the parts with these label values own."""
    wanted: dict[Ref, tuple[str, Document]] = {}
    for part in sorted(desired):
        for document in desired[part]:
            wanted.setdefault(ref_of(document), (part, document))

    labels = {part: part_label(part) for part in desired}
    removals = [_remove(ref, found) for ref, found in actual.items() if ref not in wanted]
    narrowings: list[Apply] = []
    additions: list[Apply] = []
    for ref, (part, document) in wanted.items():
        found = actual.get(ref)
        if found is None and only is not None and labels[part] not in only:
            continue
        step = Apply(ref, mark(document, part), labels[part])
        if found is None:
            additions.append(replace(step, is_new=True))
        elif _must_be_made_again(found, step.document):
            removals.append(_remove(ref, found))
            additions.append(replace(step, is_new=True))
        elif not is_met(found, step.document):
            narrowed = _narrow(found, step.document)
            if narrowed is None:
                additions.append(replace(step, moved_from=_moved_from(found, step)))
                continue
            narrowings.append(Apply(ref, narrowed, step.part))
            if narrowed is not step.document:
                additions.append(step)

    deletions = [r for r in removals if isinstance(r, Delete)]
    rights = [r for r in deletions if _is_rights(r.ref)]
    others = [r for r in deletions if not _is_rights(r.ref)]
    takes: list[Step] = [
        *sorted(rights, key=lambda d: (d.ref.kind not in BINDING_KINDS, d.ref)),
        *sorted(narrowings, key=lambda a: a.ref),
        *sorted(others, key=lambda d: (_place(d.ref.kind), d.ref), reverse=True),
        *sorted((r for r in removals if isinstance(r, Release)), key=lambda r: r.namespace),
    ]
    # Who waits for something new does not wait for what there is to be written again, as when a large project's parts are cut anew.
    gives: list[Step] = [
        *sorted(additions, key=lambda a: (not a.is_new, bool(a.moved_from), _place(a.ref.kind), a.ref))
    ]
    return takes, gives


def _remove(ref: Ref, found: Document) -> Delete | Release:
    uid, part = str((found.get("metadata") or {}).get("uid") or ""), labels_of(found).get(PART, "")
    if ref.api_version == "v1" and ref.kind == "Namespace":
        return Release(ref.name, uid, part, find_marks(found))
    return Delete(ref, uid, part)


def _is_rights(ref: Ref) -> bool:
    return ref.group == RBAC_GROUP


def _place(kind: str) -> int:
    """Where a kind stands in the order of creation: what others need, first; bindings after the roles they name."""
    return _FIRST_KINDS.index(kind) if kind in _FIRST_KINDS else len(_FIRST_KINDS)


def _must_be_made_again(found: Document, desired: Document) -> bool:
    """A binding that names another role: that field can't be changed. A role that somebody made gather the rules of others."""
    if found.get("kind") in BINDING_KINDS:
        return found.get("roleRef") != desired.get("roleRef")
    return bool(found.get("aggregationRule")) and "aggregationRule" not in desired


def is_met(found: Document, desired: Document) -> bool:
    """Whether `found` is all that `desired` (as it is marked) says; quantities may be written otherwise."""
    if desired.get("kind") in QUANTITY_KINDS:
        found, desired = ({**d, "spec": normalise(d.get("spec"))} for d in (found, desired))
    return is_satisfied(found, desired)


def _moved_from(found: Document, step: Apply) -> str:
    """Label value of the part that we marked the object with, when that is all that is not as it should be; else empty."""
    before = labels_of(found).get(PART, "")
    if before == step.part or not is_label_ours(found, PART):
        return ""
    metadata = step.document["metadata"]
    same = {**step.document, "metadata": {**metadata, "labels": {**metadata["labels"], PART: before}}}
    return before if is_met(found, same) else ""


def _narrow(found: Document, desired: dict[str, Any]) -> dict[str, Any] | None:
    """The step that takes rights away: `desired` itself when it only takes, the common part when it also gives, None when nothing goes."""
    kind = found.get("kind")
    field = "rules" if kind in ROLE_KINDS else "subjects" if kind in BINDING_KINDS else ""
    if not field:
        return None
    have, want = _keyed(found.get(field) or ()), _keyed(desired.get(field) or ())
    if have.keys() <= want.keys():
        return None
    if want.keys() <= have.keys():
        return desired
    return {**desired, field: [item for key, item in want.items() if key in have]}


def _keyed(items: Iterable[Any]) -> dict[str, Any]:
    return {json.dumps(item, sort_keys=True): item for item in items}
