"""OpenAPI v3 documents: what kubectl explain, apply and edit read, made from the surface and the models. Pure.

kubectl refuses to create or apply with its default strict validation unless the write operations declare `fieldValidation`.
`openapi_v2` makes the older document from these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from libs.common.apiserver.schemas import REF, render_schemas, schema_name
from libs.common.apiserver.surface import GROUP_VERSIONS, SURFACE, ApiResource
from libs.common.resources.meta import GROUP, VERSION

_STRING = {"type": "string", "uniqueItems": True}
_DRY_RUN = ("dryRun", "All: go through every check and write nothing.")
_MANAGER = ("fieldManager", "Name of who makes the change, for managedFields.")
_VALIDATION = ("fieldValidation", "What happens to unknown and duplicate fields: Strict, Warn (default) or Ignore.")
_FORCE = ("force", "Take over fields that others manage; apply patches only.")
_LIST = (
    ("allowWatchBookmarks", "Send bookmarks in a watch."),
    ("continue", "Go on with a paged list."),
    ("fieldSelector", "Only objects whose fields match."),
    ("labelSelector", "Only objects whose labels match."),
    ("limit", "At most so many objects a page."),
    ("resourceVersion", "From or at which version."),
    ("resourceVersionMatch", "How resourceVersion is meant: NotOlderThan or Exact."),
    ("sendInitialEvents", "Begin a watch with all there is."),
    ("timeoutSeconds", "End a watch after so many seconds."),
    ("watch", "Watch for changes instead of listing."),
)
_TYPES = {
    "allowWatchBookmarks": "boolean", "sendInitialEvents": "boolean", "watch": "boolean", "force": "boolean",
    "limit": "integer", "timeoutSeconds": "integer",
}  # fmt: skip
PATCH_TYPES = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json")


@cache
def render_document(group: str, version: str) -> dict[str, Any]:
    """The OpenAPI v3 document of one group version."""
    rows = [r for r in SURFACE if (r.group, r.version) == (group, version)]
    models = {r.model for r in rows if r.model is not None}
    models |= {s.model for r in rows for s in r.subresources if s.model is not None}
    schemas = render_schemas(sorted(models, key=lambda m: m.__name__)) if models else {}
    paths: dict[str, Any] = {}
    for row in rows:
        paths |= _paths(row)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Herdsman", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }


@cache
def render_index() -> dict[str, Any]:
    """`/openapi/v3`: where each document is; the hash lets clients cache it for ever."""
    paths = {}
    for group, version in GROUP_VERSIONS:
        relative = f"apis/{group}/{version}" if group else f"api/{version}"
        paths[relative] = {"serverRelativeURL": f"/openapi/v3/{relative}?hash={document_hash(group, version)}"}
    return {"paths": paths}


@cache
def document_hash(group: str, version: str) -> str:
    return hashlib.sha256(json.dumps(render_document(group, version), sort_keys=True).encode()).hexdigest().upper()[:64]


def find_dangling_refs(document: Mapping[str, Any]) -> list[str]:
    """References that resolve to nothing: one of them breaks every application that Argo CD manages here."""
    known = {REF + name for name in document.get("components", {}).get("schemas", {})}
    known |= {f"#/definitions/{name}" for name in document.get("definitions", {})}
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, Mapping):
            ref = node.get("$ref")
            if isinstance(ref, str) and ref not in known:
                found.append(ref)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    return found


def _paths(row: ApiResource) -> dict[str, Any]:
    base = f"/apis/{row.group}/{row.version}" if row.group else f"/api/{row.version}"
    collection = f"{base}/{row.plural}"
    schema = schema_name(row.kind) if row.model is not None else ""
    paths: dict[str, Any] = {collection: _operations(row, row.kind, schema, row.verbs, on_collection=True)}
    if row.group == GROUP:
        paths[f"{collection}/{{name}}"] = _operations(row, row.kind, schema, row.verbs, on_collection=False)
    for sub in row.subresources:
        sub_schema = schema_name(sub.kind) if sub.model is not None else schema
        operations = _operations(
            row, sub.kind, sub_schema, sub.verbs, on_collection="create" in sub.verbs, suffix=sub.name
        )
        operations["parameters"] = [_path_parameter("name", "Name of the object.")]
        paths[f"{collection}/{{name}}/{sub.name}"] = operations
    return {path: operations for path, operations in paths.items() if operations}


def _operations(
    row: ApiResource, kind: str, schema: str, verbs: tuple[str, ...], *, on_collection: bool, suffix: str = ""
) -> dict[str, Any]:
    table = _ON_COLLECTION if on_collection else _ON_OBJECT
    operations: dict[str, Any] = {}
    for verb, method, action, parameters in table:
        if verb not in verbs:
            continue
        result = f"{schema}List" if schema and verb == "list" else schema
        operation: dict[str, Any] = {
            "description": f"{action} {kind}",
            "operationId": f"{action}{''.join(p.title() for p in row.group.split('.')[:1])}{row.version.title()}{kind}{suffix.title()}",
            "parameters": [_query_parameter(name, text) for name, text in parameters],
            "responses": {"200": {"description": "OK", **_content(result, ("application/json",))}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": row.group, "version": row.version, "kind": kind},
        }
        if method in ("post", "put"):
            operation["requestBody"] = {"required": True, **_content(schema, ("application/json",))}
        elif method == "patch":
            operation["requestBody"] = {"required": True, **_content("", PATCH_TYPES)}
        operations[method] = operation
    if operations and not on_collection:
        operations["parameters"] = [_path_parameter("name", f"Name of the {kind}.")]
    return operations


_WRITE = (_DRY_RUN, _MANAGER, _VALIDATION)
_ON_COLLECTION = (
    ("list", "get", "list", _LIST), ("create", "post", "post", _WRITE), ("deletecollection", "delete", "deletecollection", (_DRY_RUN, *_LIST)),
)  # fmt: skip
_ON_OBJECT = (
    ("get", "get", "get", ()), ("update", "put", "put", _WRITE), ("patch", "patch", "patch", (*_WRITE, _FORCE)),
    ("delete", "delete", "delete", (_DRY_RUN,)),
)  # fmt: skip


def _content(schema: str, media_types: tuple[str, ...]) -> dict[str, Any]:
    inner: dict[str, Any] = {"$ref": REF + schema} if schema else {"type": "object"}
    return {"content": {media_type: {"schema": inner} for media_type in media_types}}


def _query_parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": {"type": _TYPES.get(name, "string"), "uniqueItems": True},
    }


def _path_parameter(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": dict(_STRING)}
