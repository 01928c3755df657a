"""Server-side apply: merge what one manager declares into the live object, by field ownership.

Pure. The writer calls `apply`; `managed_fields` is the model behind it. Kubernetes page: "Server-Side Apply".
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from libs.common import errors
from libs.common.apiserver.managed_fields import KEYED, SETS, FieldSet, Manager, Path, leaves
from libs.common.resources.meta import format_time

KUBECTL = "kubectl"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_MISSING = object()


def apply(
    live: Mapping[str, Any],
    managers: list[Manager],
    declared: Mapping[str, Any],
    name: str,
    now: datetime,
    *,
    force: bool = False,
    subresource: str = "",
) -> tuple[dict[str, Any], list[Manager]]:
    """The merged document and the managers after it.

    A field that `name` declared before and leaves out now is removed unless another manager holds it too. Raises Conflict
    with one FieldManagerConflict cause for each field that another manager holds with another value, unless `force`.
    """
    wanted, current = leaves(declared, subresource), leaves(live, subresource)
    mine = (name, "Apply", subresource)
    others = [m for m in managers if m.identity != mine]
    # An empty map says "there is a map": whatever is in it already stays, and nobody is in the way.
    present = {p[:n] for p in current for n in range(1, len(p))}
    contested = {p for p, v in wanted.items() if current.get(p, _MISSING) != v and not (_is_empty(v) and p in present)}
    solid = {p for p, value in current.items() if not _is_empty(value)}
    conflicts = [(m, sorted(_overlap(m.fields, contested, solid))) for m in others]
    conflicts = [(m, paths) for m, paths in conflicts if paths]
    if conflicts and not force:
        excused = _from_client_side_apply(live, current, subresource) if name == KUBECTL else frozenset()
        refused = [(m, [p for p in paths if p not in excused]) for m, paths in conflicts]
        refused = [(m, paths) for m, paths in refused if paths]
        if refused:
            raise _conflict(refused)
    taken = frozenset(path for _, paths in conflicts for path in paths)
    others = [replace(m, fields=m.fields - taken) for m in others]

    before = next((m for m in managers if m.identity == mine), None)
    dropped = (before.fields if before else frozenset()) - set(wanted)
    held = frozenset[Path]().union(*(m.fields for m in others))
    merged: dict[str, Any] = copy.deepcopy(dict(live))
    # The key of an item goes last: by it the item is found.
    for path in sorted((dropped - held) & current.keys(), key=lambda p: (_is_key(p), -len(p))):
        _remove(merged, path)
    for path, value in wanted.items():
        if not (_is_empty(value) and path in present):
            _set(merged, path, copy.deepcopy(value))

    fields: FieldSet = frozenset(wanted)
    unchanged = before is not None and before.fields == fields and merged == live
    time = before.time if before is not None and unchanged else format_time(now)
    return merged, [m for m in others if m.fields] + [Manager(name, "Apply", fields, time, subresource)]


def _from_client_side_apply(live: Mapping[str, Any], current: Mapping[Path, Any], subresource: str) -> FieldSet:
    """Fields that kubectl's client-side apply set and nobody changed since: its server-side apply may take these over, so that
    people can move from one to the other."""
    text = (live.get("metadata", {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        applied = json.loads(text) if text else None
    except ValueError:
        return frozenset()
    if not isinstance(applied, Mapping):
        return frozenset()
    return frozenset(p for p, value in leaves(applied, subresource).items() if current.get(p, _MISSING) == value)


def _is_empty(value: Any) -> bool:
    return value in ({}, [])


def _overlap(fields: FieldSet, contested: set[Path], solid: set[Path]) -> set[Path]:
    """Fields of a manager that the contested paths are, lie in (where something solid is: a scalar, a list), or contain."""
    found = fields & contested
    prefixes = {p[:n] for p in contested for n in range(1, len(p))} & solid
    found |= {p for p in fields if p in prefixes or any(p[:n] in contested for n in range(1, len(p)))}
    return set(found)


def _conflict(conflicts: list[tuple[Manager, list[Path]]]) -> errors.Conflict:
    causes = []
    told = []
    for manager, paths in conflicts:
        using = f' with subresource "{manager.subresource}"' if manager.subresource else ""
        when = f" at {manager.time}" if manager.time and manager.operation == "Update" else ""
        version = " using management.herdsman.dev/v1" if manager.operation == "Update" else ""
        who = f'conflict with "{manager.name}"{using}{version}{when}'
        told.append(
            f"{who}: {', '.join(readable(p) for p in paths)}"
            if len(paths) == 1
            else f"{who}:\n" + "\n".join(f"- {readable(p)}" for p in paths)
        )
        causes += [errors.Cause(readable(p), who, "FieldManagerConflict") for p in paths]
    count = len(causes)
    text = f"Apply failed with {count} conflict{'s' if count != 1 else ''}: "
    return errors.Conflict(text + (told[0] if len(told) == 1 else "conflicts " + "\n".join(told)), causes=causes)


def readable(path: Path) -> str:
    """A path as Kubernetes prints it in a conflict: `.spec.displayName`, `.status.conditions[type="Ready"].status`."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            keys = ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(rest).items())
            text += f"[{keys}]"
        else:
            text += f"[={rest}]"
    return text


def _set(document: dict[str, Any], path: Path, value: Any) -> None:
    """Put one leaf in place, making maps and keyed items on the way."""
    node: Any = document
    for index, element in enumerate(path):
        last, here = index == len(path) - 1, path[: index + 1]
        kind, _, rest = element.partition(":")
        if kind == "f":
            if last:
                node[rest] = value
                return
            following: Any = [] if here in KEYED or here in SETS else {}
            if not isinstance(node.get(rest), type(following)):
                node[rest] = following
            node = node[rest]
        elif kind == "k":
            node = _item(node, json.loads(rest), make=True)
        elif value not in node:
            node.append(value)


def _is_key(path: Path) -> bool:
    """Whether the leaf is what tells an item of a keyed list from the others."""
    kind, _, keys = path[-2].partition(":") if len(path) > 1 else ("", "", "")
    return kind == "k" and path[-1].removeprefix("f:") in json.loads(keys)


def _remove(document: dict[str, Any], path: Path) -> None:
    """Take one leaf away, and every map, list and keyed item that is empty then."""
    trail: list[tuple[Any, str]] = []
    node: Any = document
    for element in path:
        trail.append((node, element))
        kind, _, rest = element.partition(":")
        if kind == "f":
            node = node.get(rest) if isinstance(node, dict) else None
        elif kind == "k":
            node = _item(node, json.loads(rest), make=False)
        if node is None:
            return
    if _is_key(path):
        item = trail.pop()[0]
        if set(item) - set(json.loads(path[-2][2:])):
            return
    for depth, (parent, element) in enumerate(reversed(trail)):
        kind, _, rest = element.partition(":")
        if kind == "v":
            parent[:] = [item for item in parent if item != json.loads(rest)]
        elif kind == "k":
            item = _item(parent, json.loads(rest), make=False)
            if item is None or set(item) - set(json.loads(rest)):
                return
            parent.remove(item)
        else:
            # The top-level parts stay: an object without spec is another thing than one with an empty spec.
            if depth and (parent[rest] or parent is document):
                return
            del parent[rest]


def _item(items: Any, keys: Mapping[str, Any], *, make: bool) -> Any:
    if not isinstance(items, list):
        return None
    for item in items:
        if all(item.get(k) == v for k, v in keys.items()):
            return item
    if make:
        items.append(dict(keys))
        return items[-1]
    return None
