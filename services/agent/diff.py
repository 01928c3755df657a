"""From what is to what should be, as steps that are safe to stop after any of them. Pure: values in, steps out.

Order: bindings and roles that should not be go first, then those that say too much are narrowed, then everything else that
should not be goes, and only then is anything added. So at no moment does anybody hold an old and a new right together that
were not meant together, whatever the moment at which the agent dies. `apply` takes the steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.kube.objects import Document, Ref, is_satisfied, labels_of, ref_of
from services.agent.owned import BINDING_KINDS, PART, RBAC_GROUP, ROLE_KINDS, mark, part_label

_FIRST_KINDS = ("Namespace", "CustomResourceDefinition", "ServiceAccount", *ROLE_KINDS)


@dataclass(frozen=True, slots=True)
class Delete:
    ref: Ref
    uid: str
    part: str
    """Label value of the part that the object belongs to."""


@dataclass(frozen=True, slots=True)
class Apply:
    ref: Ref
    document: dict[str, Any]
    part: str


Step = Delete | Apply


def diff_parts(desired: Mapping[str, Sequence[Document]], actual: Mapping[Ref, Document]) -> list[Step]:
    """The steps from `actual` (everything that we own in the cluster) to `desired` (part name → its objects).

    An object that two parts want belongs to the part that comes first by name.
    """
    wanted: dict[Ref, Apply] = {}
    for part in sorted(desired):
        for document in desired[part]:
            ref = ref_of(document)
            wanted.setdefault(ref, Apply(ref, mark(document, part), part_label(part)))

    removals = [_delete(ref, found) for ref, found in actual.items() if ref not in wanted]
    narrowings: list[Step] = []
    additions: list[Step] = []
    for ref, step in wanted.items():
        found = actual.get(ref)
        if found is None:
            additions.append(step)
        elif _has_other_role(found, step.document):
            removals.append(_delete(ref, found))
            additions.append(step)
        elif not is_satisfied(found, step.document):
            narrowed = _narrow(found, step.document)
            if narrowed is None:
                additions.append(step)
                continue
            narrowings.append(Apply(ref, narrowed, step.part))
            if narrowed is not step.document:
                additions.append(step)

    rights = [r for r in removals if _is_rights(r.ref)]
    others = [r for r in removals if not _is_rights(r.ref)]
    return [
        *sorted(rights, key=lambda r: (r.ref.kind not in BINDING_KINDS, r.ref)),
        *sorted(narrowings, key=lambda s: s.ref),
        *sorted(others, key=lambda r: (_place(r.ref.kind), r.ref), reverse=True),
        *sorted(additions, key=lambda s: (_place(s.ref.kind), s.ref)),
    ]


def _delete(ref: Ref, found: Document) -> Delete:
    return Delete(ref, str((found.get("metadata") or {}).get("uid") or ""), labels_of(found).get(PART, ""))


def _is_rights(ref: Ref) -> bool:
    return ref.group == RBAC_GROUP


def _place(kind: str) -> int:
    """Where a kind stands in the order of creation: what others need, first; bindings after the roles they name."""
    return _FIRST_KINDS.index(kind) if kind in _FIRST_KINDS else len(_FIRST_KINDS)


def _has_other_role(found: Document, desired: Document) -> bool:
    """Whether a binding names another role than it should: that field cannot be changed, the binding is made again."""
    return found.get("kind") in BINDING_KINDS and found.get("roleRef") != desired.get("roleRef")


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
