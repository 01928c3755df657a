"""The hub's Kubernetes-style API from a client's side: paths, paged lists, tables. Used by `commands/`.

`API_VERSION` is written out because the module that owns it imports pydantic, which costs more than a whole command here;
a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.cli.hub import TABLE_ACCEPT, Document, Hub, segment

API_VERSION = "management.herdsman.dev/v1"
ROOT = f"/apis/{API_VERSION}"
_PAGE = 500


def path(plural: str, name: str = "", subresource: str = "") -> str:
    """The URL path of a collection, an object or its subresource."""
    return "/".join([ROOT, plural, *(segment(part) for part in (name, subresource) if part)])


def new(kind: str, name: str, spec: Document) -> Document:
    """A document to create."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def list_items(hub: Hub, plural: str, *, fields: str = "", labels: str = "") -> Iterator[Document]:
    """All objects that the caller may see, page by page."""
    query = {"limit": str(_PAGE)}
    if fields:
        query["fieldSelector"] = fields
    if labels:
        query["labelSelector"] = labels
    while True:
        answer = hub.get(path(plural), query)
        yield from answer.get("items", ())
        cursor = (answer.get("metadata") or {}).get("continue")
        if not cursor:
            return
        query["continue"] = cursor


def table(
    hub: Hub, plural: str, *, fields: str = "", labels: str = "", wide: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Column names and rows as the hub prints them: the same columns that kubectl shows."""
    query = {"limit": str(_PAGE)}
    if fields:
        query["fieldSelector"] = fields
    if labels:
        query["labelSelector"] = labels
    columns: list[str] = []
    chosen: list[int] = []
    rows: list[list[str]] = []
    while True:
        answer = hub.get(path(plural), query, accept=TABLE_ACCEPT)
        if not columns:
            definitions = answer.get("columnDefinitions") or []
            chosen = [i for i, d in enumerate(definitions) if wide or not d.get("priority")]
            columns = [str(definitions[i].get("name", "")).upper() for i in chosen]
        for row in answer.get("rows") or ():
            cells = row.get("cells") or []
            rows.append([_cell(cells[i]) if i < len(cells) else "" for i in chosen])
        cursor = (answer.get("metadata") or {}).get("continue")
        if not cursor:
            return columns, rows
        query["continue"] = cursor


def condition(document: Document, type_: str) -> Document:
    """One condition of an object, an empty one where it has none."""
    return next((c for c in (document.get("status") or {}).get("conditions", ()) if c.get("type") == type_), {})


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
