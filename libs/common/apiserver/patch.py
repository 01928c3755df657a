"""Patches on documents: JSON merge patch (RFC 7386) and JSON patch (RFC 6902). Pure: the old document is never touched."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from libs.common import errors

MAX_OPERATIONS = 10_000
MAX_COPIED_BYTES = 3 * 1024 * 1024
"""`copy` can double a document with every operation: this bounds what one patch may add."""


def merge_patch(document: Any, patch: Any) -> Any:
    """RFC 7386: maps merge, null removes, everything else replaces."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(document) if isinstance(document, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902: all operations or none. Raises BadRequest when the patch is no patch, Invalid when it does not fit."""
    if not isinstance(operations, list):
        raise errors.BadRequest("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise errors.TooLarge(f"the JSON patch has {len(operations)} operations, the limit is {MAX_OPERATIONS}")
    result, copied = copy.deepcopy(document), 0
    for number, operation in enumerate(operations):
        if not isinstance(operation, Mapping) or not isinstance(operation.get("path"), str):
            raise errors.BadRequest(f"operation {number} of the JSON patch has no path")
        result, added = _run(result, operation, number)
        copied += added
        if copied > MAX_COPIED_BYTES:
            raise errors.TooLarge(f"the JSON patch copies more than {MAX_COPIED_BYTES} bytes")
    return result


def _run(document: Any, operation: Mapping[str, Any], number: int) -> tuple[Any, int]:
    kind, path = operation.get("op"), _pointer(operation["path"], number)
    if kind in ("add", "replace", "test") and "value" not in operation:
        raise errors.BadRequest(f"operation {number} ({kind}) of the JSON patch has no value")
    if kind == "add":
        return _add(document, path, copy.deepcopy(operation["value"]), number), 0
    if kind == "replace":
        _get(document, path, number)
        return _add(
            _remove(document, path, number) if path else document, path, copy.deepcopy(operation["value"]), number
        ), 0
    if kind == "remove":
        return _remove(document, path, number), 0
    if kind == "test":
        if not _same(_get(document, path, number), operation["value"]):
            raise _unfit(number, f"testing value {operation['path']} failed")
        return document, 0
    if kind in ("move", "copy"):
        if not isinstance(operation.get("from"), str):
            raise errors.BadRequest(f"operation {number} ({kind}) of the JSON patch has no from")
        source = _pointer(operation["from"], number)
        value = _get(document, source, number)
        if kind == "copy":
            return _add(document, path, copy.deepcopy(value), number), len(json.dumps(value))
        if path[: len(source)] == source and path != source:
            raise _unfit(number, "a value cannot be moved into itself")
        # It is in one place before and after, so no copy: ten thousand moves of a large value would take minutes.
        return _add(_remove(document, source, number), path, value, number), 0
    raise errors.BadRequest(f"operation {number} of the JSON patch has an unknown op {json.dumps(kind)}")


def _pointer(text: str, number: int) -> list[str]:
    """RFC 6901."""
    if text == "":
        return []
    if not text.startswith("/"):
        raise errors.BadRequest(f"operation {number} of the JSON patch: {text!r} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _index(items: list[Any], part: str, number: int, *, end: bool) -> int:
    if end and part == "-":
        return len(items)
    if not part.isascii() or not part.isdigit() or (len(part) > 1 and part[0] == "0") or len(part) > 9:
        raise _unfit(number, f"{part!r} is no list index")
    index = int(part)
    if index >= len(items) + end:
        raise _unfit(number, f"index {index} is out of bounds")
    return index


def _get(document: Any, path: list[str], number: int) -> Any:
    value = document
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list):
            value = value[_index(value, part, number, end=False)]
        else:
            raise _unfit(number, f"there is no {part!r}")
    return value


def _add(document: Any, path: list[str], value: Any, number: int) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1], number)
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list):
        parent.insert(_index(parent, path[-1], number, end=True), value)
    else:
        raise _unfit(number, f"{path[-1]!r} cannot be added to a plain value")
    return document


def _remove(document: Any, path: list[str], number: int) -> Any:
    if not path:
        return None
    parent = _get(document, path[:-1], number)
    if isinstance(parent, dict) and path[-1] in parent:
        del parent[path[-1]]
    elif isinstance(parent, list):
        del parent[_index(parent, path[-1], number, end=False)]
    else:
        raise _unfit(number, f"there is no {path[-1]!r}")
    return document


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON: 1 is 1.0, but true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _unfit(number: int, why: str) -> errors.Invalid:
    return errors.Invalid(
        f"the server rejected our request due to an error in our request: JSON patch operation {number}: {why}"
    )
