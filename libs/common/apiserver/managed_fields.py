"""Who manages which field: `metadata.managedFields` in the FieldsV1 format of server-side apply.

A field set is a set of leaf paths; a path is a tuple of FieldsV1 elements: `f:<field>`, `k:{"type":"Ready"}` (an item of a list
that is keyed), `v:"x"` (an item of a list that is a set). Lists are atomic, save those in `KEYED` and `SETS`, which all
kinds share. `apply` decides with these sets; `writer` keeps them current for all other writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from libs.common.resources.meta import API_VERSION, format_time

Path = tuple[str, ...]
FieldSet = frozenset[Path]

KEYED: Mapping[Path, str] = {
    ("f:status", "f:conditions"): "type",
    ("f:metadata", "f:ownerReferences"): "uid",
}
"""Lists whose items are told apart by one key: `x-kubernetes-list-type: map`."""
SETS: frozenset[Path] = frozenset({("f:metadata", "f:finalizers")})
"""Lists of scalars without order: `x-kubernetes-list-type: set`."""

UNMANAGED: frozenset[Path] = frozenset(
    {("f:apiVersion",), ("f:kind",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "generateName", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
            "managedFields",
        )
    }
)  # fmt: skip
"""What the server itself keeps; nobody manages it."""
MAX_UPDATE_MANAGERS = 10
"""Beyond it the oldest Update entries are merged into one, so that an object can't grow with its writers."""
ANCIENT = "ancient-changes"


@dataclass(frozen=True, slots=True)
class Manager:
    """One entry. `operation` is Apply (declared) or Update (touched); the same name may have one of each."""

    name: str
    operation: str
    fields: FieldSet
    time: str = ""
    subresource: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        return (self.name, self.operation, self.subresource)


def leaves(document: Mapping[str, Any], subresource: str = "") -> dict[Path, Any]:
    """Every leaf with its value; only what a write through this door can change (`status` or everything but it)."""
    found: dict[Path, Any] = {}
    for key, value in document.items():
        if (key == "status") != (subresource == "status"):
            continue
        _collect((f"f:{key}",), value, found)
    return found


def _collect(path: Path, value: Any, found: dict[Path, Any]) -> None:
    if path in UNMANAGED:
        return
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            _collect((*path, f"f:{key}"), item, found)
    elif path in KEYED and isinstance(value, list) and value:
        key_name = KEYED[path]
        for item in value:
            element = f"k:{_compact({key_name: item.get(key_name)})}"
            for field, inner in item.items():
                _collect((*path, element, f"f:{field}"), inner, found)
    elif path in SETS and isinstance(value, list) and value:
        for item in value:
            found[(*path, f"v:{_compact(item)}")] = item
    elif path != ("f:metadata",):
        found[path] = value


def parse_managers(document: Mapping[str, Any]) -> list[Manager]:
    """The entries of a document; those in a format that nobody knows are dropped, as if nobody managed these fields."""
    managers = []
    for entry in document.get("metadata", {}).get("managedFields") or ():
        if (
            not isinstance(entry, Mapping)
            or entry.get("fieldsType", "FieldsV1") != "FieldsV1"
            or not entry.get("manager")
        ):
            continue
        managers.append(
            Manager(
                str(entry["manager"]), str(entry.get("operation", "Update")), parse_fields(entry.get("fieldsV1") or {}),
                str(entry.get("time") or ""), str(entry.get("subresource") or ""),
            )
        )  # fmt: skip
    return managers


def render_managers(managers: Iterable[Manager]) -> list[dict[str, Any]]:
    """The value of `metadata.managedFields`; Apply before Update, then by time and name, as Kubernetes orders them."""
    entries = []
    for manager in sorted(managers, key=lambda m: (m.operation, m.time, m.name, m.subresource)):
        if not manager.fields:
            continue
        entry: dict[str, Any] = {
            "apiVersion": API_VERSION, "fieldsType": "FieldsV1", "fieldsV1": render_fields(manager.fields),
            "manager": manager.name, "operation": manager.operation,
        }  # fmt: skip
        if manager.time:
            entry["time"] = manager.time
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    return entries


def parse_fields(tree: Mapping[str, Any]) -> FieldSet:
    """FieldsV1 → leaf paths. An item `.` says only that the parent exists and adds nothing to its leaves."""
    found: set[Path] = set()

    def walk(path: Path, node: Any) -> None:
        children = {k: v for k, v in node.items() if k != "."} if isinstance(node, Mapping) else {}
        if not children and path:
            found.add(path)
        for element, child in children.items():
            walk((*path, element), child)

    walk((), tree)
    return frozenset(found)


def render_fields(fields: FieldSet) -> dict[str, Any]:
    """Leaf paths → FieldsV1; inverse of `parse_fields`. Items of keyed lists carry `.`: they exist because of the manager."""
    tree: dict[str, Any] = {}
    for path in sorted(fields):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
            if element.startswith("k:"):
                node.setdefault(".", {})
    return tree


def record_update(
    managers: list[Manager],
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    name: str,
    now: datetime,
    subresource: str = "",
) -> list[Manager]:
    """The managers after a write that was no apply: what changed belongs to `name`, what is gone to nobody."""
    before, after = leaves(old, subresource), leaves(new, subresource)
    written = {path for path, value in after.items() if path not in before or before[path] != value}
    gone = set(before) - set(after)
    touched = frozenset(written | gone)
    if not touched:
        return managers
    mine = (name, "Update", subresource)
    kept = [replace(m, fields=_without(m.fields, touched)) for m in managers if m.identity != mine]
    own = next((m.fields for m in managers if m.identity == mine), frozenset())
    fields = (own - gone) | written
    if fields:
        kept.append(Manager(name, "Update", frozenset(fields), format_time(now), subresource))
    return _cap([m for m in kept if m.fields])


def _without(fields: FieldSet, touched: FieldSet) -> FieldSet:
    """`fields` less the touched paths, and less what lies below or above one: a list became a scalar, say."""
    return frozenset(p for p in fields if p not in touched and not any(p[:n] in touched for n in range(1, len(p))))


def _cap(managers: list[Manager]) -> list[Manager]:
    updates = sorted((m for m in managers if m.operation == "Update" and not m.subresource), key=lambda m: m.time)
    surplus = updates[: max(0, len(updates) - MAX_UPDATE_MANAGERS)]
    if not surplus:
        return managers
    merged = frozenset[Path]().union(*(m.fields for m in surplus))
    rest = [m for m in managers if m not in surplus]
    return [*rest, Manager(ANCIENT, "Update", merged, surplus[-1].time)]


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
