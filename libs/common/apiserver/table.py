"""`meta.k8s.io/v1 Table`: what `kubectl get` prints, from the columns in the registry. Pure; the gateway calls it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from libs.common.resources.registry import Column, ResourceType, field_at

NONE = "<none>"
_UNITS = ((365 * 86400, "y"), (86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def render_table(
    rtype: ResourceType,
    documents: Iterable[Mapping[str, Any]],
    list_metadata: Mapping[str, Any],
    now: datetime,
    *,
    include: str = "Metadata",
    version: str = "v1",
    with_columns: bool = True,
) -> dict[str, Any]:
    """A Table of these documents. `include` is what each row carries of its object: Metadata, Object or None."""
    table: dict[str, Any] = {"kind": "Table", "apiVersion": f"meta.k8s.io/{version}", "metadata": dict(list_metadata)}
    table["columnDefinitions"] = render_columns(rtype) if with_columns else []
    table["rows"] = [_row(rtype, document, now, include, version) for document in documents]
    return table


def render_columns(rtype: ResourceType) -> list[dict[str, Any]]:
    """The column definitions: Name first, Age last."""
    name = {"name": "Name", "type": "string", "format": "name", "description": "Name of the object.", "priority": 0}
    age = {"name": "Age", "type": "date", "format": "", "description": "Time since it was created.", "priority": 0}
    return [name, *(_column(c) for c in rtype.columns), age]


def render_partial(document: Mapping[str, Any], version: str = "v1") -> dict[str, Any]:
    """The object as PartialObjectMetadata: for clients that watch metadata only."""
    return {
        "kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": document.get("metadata", {}),
    }  # fmt: skip


def render_age(moment: str | None, now: datetime) -> str:
    """As kubectl prints ages: 42s, 5m30s, 3h, 2d4h, 400d, 3y. What lies ahead is `in 29d`."""
    if not moment:
        return NONE
    try:
        seconds = int((now - datetime.fromisoformat(moment)).total_seconds())
    except ValueError:
        return NONE
    if seconds < -2:
        return f"in {human_duration(-seconds)}"
    return human_duration(max(0, seconds))


def human_duration(seconds: int) -> str:
    """Two units while the second still matters, as in Kubernetes' duration.HumanDuration."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 365 * 2:
        return f"{days}d"
    years, rest = divmod(days, 365)
    return f"{years}y{rest}d" if years < 8 and rest else f"{years}y"


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name, "type": column.type, "format": "", "priority": column.priority,
        "description": column.description or f"From {column.path}.",
    }  # fmt: skip


def _row(rtype: ResourceType, document: Mapping[str, Any], now: datetime, include: str, version: str) -> dict[str, Any]:
    metadata = document.get("metadata", {})
    cells: list[Any] = [metadata.get("name", "")]
    cells += [_cell(column, document, now) for column in rtype.columns]
    row: dict[str, Any] = {"cells": [*cells, render_age(metadata.get("creationTimestamp"), now)]}
    if include == "Object":
        row["object"] = document
    elif include == "Metadata":
        row["object"] = render_partial(document, version)
    return row


def _cell(column: Column, document: Mapping[str, Any], now: datetime) -> Any:
    value = column.render(document) if column.render is not None else field_at(document, column.path)
    if column.type == "date":
        return render_age(value, now)
    if column.type in ("integer", "number", "boolean"):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ",".join(map(str, value))
    return NONE if value in (None, "") else str(value)
