"""Pod Security labels on namespaces, as the hub's templates order them. Pure but for `label` and `unlabel`, which `apply` calls.

A namespace is not ours: its labels are applied under a manager of their own, what was there before is kept beside them, and all is put back
when no template speaks of it any more. A level that somebody else set and that is stricter is never lowered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.kube.objects import Document, is_satisfied, labels_of
from libs.common.policies.levels import (
    DOMAIN,
    LATEST,
    LEVELS,
    MODES,
    ORDER_KIND,
    mode_of_labels,
    strictest,
    wanted_labels,
)
from services.agent.claims import CLAIM_VERSION, POD_SECURITY, PROJECT, Claim
from services.agent.owned import FIELD_MANAGER, is_label_ours, part_label

MARK = "management.herdsman.dev/pod-security"
"""Label on a namespace whose levels are kept here: by it they are found again when a template goes, or the agent."""
BEFORE = "management.herdsman.dev/pod-security-before"
"""Annotation with the labels that stood there before."""
MANAGER = "herdsman-pod-security"
_KEYS = tuple(f"{DOMAIN}/{name}{suffix}" for name in MODES for suffix in ("", "-version"))
Orders = Sequence[tuple[str, Mapping[str, Any]]]
"""(Label value of the part, what it orders)."""


@dataclass(frozen=True, slots=True)
class Level:
    """Set the labels of a namespace. `is_new`: it had none of ours, so that nobody has changed them."""

    namespace: str
    uid: str
    part: str
    is_new: bool
    document: dict[str, Any] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Unlevel:
    """Take them off again, and put back what was there (`before`)."""

    namespace: str
    uid: str
    part: str
    before: Mapping[str, str] = field(compare=False)


def read_orders(parts: Mapping[str, tuple[str, Sequence[Document]]]) -> Orders:
    """All orders that stand in these parts."""
    return [
        (part_label(name), document.get("spec") or {})
        for name, (_hash, objects) in sorted(parts.items())
        for document in objects
        if document.get("kind") == ORDER_KIND and document.get("apiVersion") == CLAIM_VERSION
    ]


def with_level(claim: Claim, orders: Orders) -> Claim:
    """The claim, with the stricter of its project's level and what templates order: two must not fight over one label."""
    labels = claim.document["metadata"]["labels"]
    if POD_SECURITY not in labels:
        return claim
    wanted = wanted_labels((spec for _part, spec in orders), claim.namespace, labels[PROJECT], labels[POD_SECURITY])
    metadata = {**claim.document["metadata"], "labels": {**labels, POD_SECURITY: wanted[POD_SECURITY]}}
    return replace(claim, document={**claim.document, "metadata": metadata})


def plan_levels(
    orders: Orders, namespaces: Mapping[str, Document], claims: Iterable[tuple[Claim, str]] = ()
) -> list[Level | Unlevel]:
    """The steps from `namespaces` (name → object) to what is ordered. `claims`: each with the level that its project wants."""
    claimed = {claim.namespace: (claim.document["metadata"]["labels"][PROJECT], level) for claim, level in claims}
    steps: list[Level | Unlevel] = []
    for name, found in sorted(namespaces.items()):
        if (found.get("metadata") or {}).get("deletionTimestamp"):
            continue
        project, level = claimed.get(name, ("", ""))
        part = next((label for label, spec in orders if wanted_labels([spec], name, project)), "")
        wanted = wanted_labels((spec for _part, spec in orders), name, project, level) if part else {}
        step = _plan(name, found, part, wanted)
        if step is not None:
            steps.append(step)
    return steps


def has_mark(found: Document) -> bool:
    return MARK in labels_of(found)


def unlevel_step(name: str, found: Document) -> Unlevel:
    return Unlevel(name, _uid(found), "", _before(found))


def _plan(name: str, found: Document, part: str, wanted: Mapping[str, str]) -> Level | Unlevel | None:
    marked = has_mark(found)
    if not wanted:
        return Unlevel(name, _uid(found), part_label("pod-security"), _before(found)) if marked else None
    before, theirs = (
        _before(found),
        {k: v for k, v in labels_of(found).items() if k in _KEYS and not _is_ours(found, k)},
    )
    labels = {MARK: "applied"}
    for mode in MODES:
        if f"{DOMAIN}/{mode}" not in wanted:
            continue
        known = [m for source in (wanted, before, theirs) if (m := mode_of_labels(source, mode)) is not None]
        chosen = strictest(known)
        assert chosen is not None
        labels |= {f"{DOMAIN}/{mode}": chosen.level, f"{DOMAIN}/{mode}-version": chosen.version}
    metadata: dict[str, Any] = {
        "name": name, "labels": labels, "annotations": {BEFORE: json.dumps(before, sort_keys=True)},
    }  # fmt: skip
    if is_satisfied(found.get("metadata"), metadata):
        return None
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {**metadata, "uid": _uid(found)}}
    return Level(name, _uid(found), part, not marked, document)


def _before(found: Document) -> dict[str, str]:
    """The labels that stood there before ours: noted on a namespace that is marked, on it itself else.

    What its project wants is none of them: that is known better, and changes.
    """
    if not has_mark(found):
        return {key: value for key, value in labels_of(found).items() if key in _KEYS and not _is_ours(found, key)}
    text = ((found.get("metadata") or {}).get("annotations") or {}).get(BEFORE) or "{}"
    try:
        noted = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(noted, dict):
        return {}
    return {key: value for key, value in noted.items() if key in _KEYS and _is_understood(key, value)}


def _is_understood(key: str, value: Any) -> bool:
    """Whether a label can be put back: who may edit the namespace may write anything into the note, and an API server refuses what is no level."""
    level, version = (LEVELS[0], value) if key.endswith("-version") else (value, LATEST)
    name = key.removeprefix(f"{DOMAIN}/").removesuffix("-version")
    labels = {f"{DOMAIN}/{name}": level, f"{DOMAIN}/{name}-version": version}
    return isinstance(value, str) and mode_of_labels(labels, name) is not None


def _is_ours(found: Document, label: str) -> bool:
    """Whether a label's value is one that we applied, for a template or for a project, by the managed fields."""
    return any(is_label_ours(found, label, manager) for manager in (MANAGER, FIELD_MANAGER))


def _uid(found: Document) -> str:
    return str((found.get("metadata") or {}).get("uid") or "")


async def label(client: KubeClient, path: str, step: Level) -> None:
    """With the uid that was seen: a namespace that was made meanwhile is another one, and none is made by this."""
    await client.apply(path, step.document, manager=MANAGER)


async def unlabel(client: KubeClient, path: str, step: Unlevel) -> None:
    """First what was there comes back, then what is ours goes: at no moment is the namespace without both."""
    nothing = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": step.namespace, "uid": step.uid}}
    try:
        if step.before:
            await client.merge(path, {"metadata": {"uid": step.uid, "labels": dict(step.before)}})
        await client.apply(path, nothing, manager=MANAGER)
    except (errors.NotFound, errors.Conflict):
        return
    except errors.Invalid as exc:
        if not any(cause.field == "metadata.uid" for cause in exc.causes):
            raise
