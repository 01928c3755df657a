"""JSON schemas of our kinds for OpenAPI, from the pydantic models: named as Kubernetes names them, without nulls.

Pure; `openapi` puts them into documents. `private` never shows: it is no part of the API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from libs.common.resources.meta import GROUP, VERSION, Resource

OURS = "dev.herdsman.management.v1."
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_SHARED = {"ObjectMeta", "OwnerReference", "ManagedFieldsEntry", "Condition"}
REF = "#/components/schemas/"

_META_DESCRIPTIONS = {
    "ObjectMeta.name": "Names the object while it lives. Can't change.",
    "ObjectMeta.generateName": "Prefix from which the hub makes a name, when none is given.",
    "ObjectMeta.uid": "Names the object for ever; set by the hub.",
    "ObjectMeta.resourceVersion": "Version of the object, for optimistic locking and watches; opaque.",
    "ObjectMeta.generation": "Counts changes of spec; set by the hub.",
    "ObjectMeta.creationTimestamp": "When it was created; set by the hub.",
    "ObjectMeta.deletionTimestamp": "When its deletion was asked for; it goes when no finalizer is left.",
    "ObjectMeta.labels": "Keys and values to select objects by.",
    "ObjectMeta.annotations": "Keys and values for tools; not for selecting.",
    "ObjectMeta.finalizers": "What has to be cleaned up before the object goes.",
    "ObjectMeta.ownerReferences": "Objects that this one belongs to.",
    "ObjectMeta.managedFields": "Who manages which field; kept by server-side apply.",
    "Resource.apiVersion": "Version of the schema of this document.",
    "Resource.kind": "Kind of this object.",
    "Resource.metadata": "Standard object metadata.",
    "Resource.spec": "What is wanted.",
    "Resource.status": "What is; written by the hub.",
}
_DROPPED = ("title", "$defs", "additionalProperties", "const", "anyOf")


def schema_name(model_name: str) -> str:
    """The full name of a model's schema, e.g. `dev.herdsman.management.v1.User`."""
    return (META if model_name in _SHARED else OURS) + model_name


def render_schemas(models: Iterable[type[Resource]]) -> dict[str, dict[str, Any]]:
    """Schema name → schema, for these kinds, their lists and all they are made of. Every `$ref` in it resolves."""
    kinds = list(models)
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in kinds]
    _, generated = models_json_schema(
        wanted, by_alias=True, ref_template=REF + "{model}", schema_generator=GenerateJsonSchema
    )
    definitions: Mapping[str, Any] = generated.get("$defs", {})
    kind_names = {model.__name__ for model in kinds}
    schemas: dict[str, dict[str, Any]] = {}
    for name, definition in definitions.items():
        if name.endswith("Private"):
            continue
        schema = _clean(definition)
        properties = schema.get("properties", {})
        properties.pop("private", None)
        owner = "Resource" if name in kind_names else name
        for field, inner in properties.items():
            described = _META_DESCRIPTIONS.get(f"{owner}.{field}")
            if described and "description" not in inner:
                properties[field] = _described(inner, described)
        if name in kind_names:
            schema["x-kubernetes-group-version-kind"] = [{"group": GROUP, "version": VERSION, "kind": name}]
            schema["required"] = [
                f for f in schema.get("required", []) if f not in ("apiVersion", "kind", "metadata")
            ] or None
            schema = {k: v for k, v in schema.items() if v is not None}
        schemas[schema_name(name)] = schema
    for model in kinds:
        schemas[schema_name(f"{model.__name__}List")] = _list_of(model.__name__)
    schemas[META + "ListMeta"] = _list_meta()
    return dict(sorted(schemas.items()))


def _clean(schema: Any) -> Any:
    """A pydantic schema in the dialect of Kubernetes: no titles, no nulls, constants as enums, refs by full name."""
    if isinstance(schema, list):
        return [_clean(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        ref = {"$ref": REF + schema_name(str(schema["$ref"]).removeprefix(REF))}
        described = schema.get("description")
        return _described(ref, described) if described else ref
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        inner = _clean(options[0]) if len(options) == 1 else {}
        described = schema.get("description")
        return _described(inner, described) if described else inner
    cleaned: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            cleaned[key] = {name: _clean(inner) for name, inner in value.items()}
        elif key == "default":
            if value not in (None, "", [], {}):
                cleaned[key] = value
        elif key == "additionalProperties":
            cleaned[key] = _clean(value) if isinstance(value, Mapping) else {"type": "object"}
            if value is True:
                del cleaned[key]
                cleaned["x-kubernetes-preserve-unknown-fields"] = True
        elif key == "const":
            cleaned["enum"] = [value]
        elif key not in _DROPPED:
            cleaned[key] = _clean(value) if key in ("items", "allOf") else value
    if isinstance(cleaned.get("description"), str):
        cleaned["description"] = " ".join(cleaned["description"].split())
    if cleaned.get("type") == "integer":
        cleaned.setdefault("format", "int64")
    if cleaned.get("type") == "array" and "items" in cleaned:
        _mark_list(cleaned)
    return cleaned


def _mark_list(schema: dict[str, Any]) -> None:
    """How apply merges it (`managed_fields`): conditions by type, owners by uid, all else as one value."""
    ref = schema["items"].get("$ref", "")
    key = "type" if ref.endswith(".Condition") else "uid" if ref.endswith(".OwnerReference") else ""
    schema["x-kubernetes-list-type"] = "map" if key else "atomic"
    if key:
        schema["x-kubernetes-list-map-keys"] = [key]


def _described(schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A `$ref` can't carry a description beside it: Kubernetes wraps it in allOf."""
    text = " ".join(description.split())
    if "$ref" in schema:
        return {"description": text, "allOf": [schema], "default": {}}
    return {**schema, "description": text}


def _list_of(kind: str) -> dict[str, Any]:
    return {
        "description": f"A list of {kind} objects.",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": _META_DESCRIPTIONS["Resource.apiVersion"]},
            "kind": {"type": "string", "description": _META_DESCRIPTIONS["Resource.kind"]},
            "metadata": {
                "description": "Standard list metadata.",
                "allOf": [{"$ref": f"{REF}{META}ListMeta"}],
                "default": {},
            },
            "items": {"type": "array", "items": {"$ref": REF + schema_name(kind)}},
        },
        "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": f"{kind}List"}],
    }


def _list_meta() -> dict[str, Any]:
    return {
        "description": "Metadata of a list.",
        "type": "object",
        "properties": {
            "resourceVersion": {"type": "string", "description": "The moment that the list shows; watch from here."},
            "continue": {"type": "string", "description": "Set when there is more: ask for it with this."},
            "remainingItemCount": {"type": "integer", "format": "int64", "description": "How many more there are."},
        },
    }
