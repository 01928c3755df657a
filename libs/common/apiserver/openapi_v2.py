"""The OpenAPI v2 document, made from the v3 ones: as JSON, and in gnostic's protobuf form, which kubectl ≤ 1.28 and Argo CD read.

Pure. Field numbers are those of gnostic's public `OpenAPIv2.proto`; only what our documents hold is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from libs.common.apiserver.openapi import render_document
from libs.common.apiserver.protobuf import encode_field
from libs.common.apiserver.schemas import REF
from libs.common.apiserver.surface import GROUP_VERSIONS
from libs.common.resources.meta import VERSION

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
RETURNED_MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""What the answer is called: no media type may hold the @ that clients ask with, and old clients refuse an answer that does."""
OLD_MEDIA_TYPE = "application/com.github.googleapis.gnostic.OpenAPIv2@68f4ded+protobuf"
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_OBJECT_METHODS = {method: number for number, method in enumerate(_METHODS, start=2)}


@cache
def render_document_v2() -> dict[str, Any]:
    """All group versions in one Swagger 2.0 document."""
    paths: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for group, version in GROUP_VERSIONS:
        document = render_document(group, version)
        definitions |= {name: _schema(schema) for name, schema in document["components"]["schemas"].items()}
        paths |= {path: _path(item) for path, item in document["paths"].items()}
    return {
        "swagger": "2.0",
        "info": {"title": "Herdsman", "version": VERSION},
        "paths": paths,
        "definitions": dict(sorted(definitions.items())),
    }


def _schema(node: Any) -> Any:
    """v3 → v2: other home of references; a wrapped reference becomes a plain one with its description beside it."""
    if isinstance(node, list):
        return [_schema(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    if "allOf" in node and len(node["allOf"]) == 1:
        merged = _schema(node["allOf"][0])
        return {**merged, "description": node["description"]} if "description" in node else merged
    converted = {key: _schema(value) for key, value in node.items()}
    if isinstance(converted.get("$ref"), str):
        converted["$ref"] = converted["$ref"].replace(REF, "#/definitions/")
    return converted


def _path(item: Mapping[str, Any]) -> dict[str, Any]:
    converted: dict[str, Any] = {}
    for method, operation in item.items():
        if method == "parameters":
            converted[method] = [_parameter(p) for p in operation]
            continue
        parameters = [_parameter(p) for p in operation.get("parameters", [])]
        consumes = ["application/json"]
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]
            consumes = list(content)
            body = _schema(next(iter(content.values()))["schema"])
            parameters.insert(0, {"name": "body", "in": "body", "required": True, "schema": body})
        schema = _schema(operation["responses"]["200"]["content"]["application/json"]["schema"])
        kept = {k: v for k, v in operation.items() if k not in ("parameters", "requestBody", "responses")}
        converted[method] = {
            **kept, "consumes": consumes, "produces": ["application/json"], "parameters": parameters,
            "responses": {"200": {"description": "OK", "schema": schema}},
        }  # fmt: skip
    return converted


def _parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    flat = {k: v for k, v in parameter.items() if k != "schema"}
    return {**flat, **parameter.get("schema", {})}


# ── gnostic's protobuf ───────────────────────────────────────────────────────────────────────────────────────────────


@cache
def render_protobuf() -> bytes:
    """`openapi.v2.Document` in bytes."""
    document = render_document_v2()
    info = encode_field(1, document["info"]["title"]) + encode_field(2, document["info"]["version"])
    paths = b"".join(encode_field(2, _named(path, _encode_path(item))) for path, item in document["paths"].items())
    definitions = b"".join(
        encode_field(1, _named(name, _encode_schema(schema))) for name, schema in document["definitions"].items()
    )
    return encode_field(1, "2.0") + encode_field(2, info) + encode_field(8, paths) + encode_field(9, definitions)


def _named(name: str, value: bytes) -> bytes:
    return encode_field(1, name) + encode_field(2, value)


def _any(value: Any) -> bytes:
    """gnostic's Any as YAML text; JSON is YAML."""
    return encode_field(2, json.dumps(value) + "\n")


def _extensions(number: int, node: Mapping[str, Any]) -> bytes:
    return b"".join(encode_field(number, _named(k, _any(v))) for k, v in node.items() if k.startswith("x-"))


def _texts(number: int, values: Any) -> bytes:
    return b"".join(encode_field(number, str(value)) for value in values)


def _encode_path(item: Mapping[str, Any]) -> bytes:
    out = b"".join(
        encode_field(number, _encode_operation(item[method]))
        for method, number in _OBJECT_METHODS.items()
        if method in item
    )
    return out + b"".join(encode_field(9, _encode_parameter(p)) for p in item.get("parameters", []))


def _encode_operation(operation: Mapping[str, Any]) -> bytes:
    response = encode_field(1, "OK") + encode_field(
        2, encode_field(1, _encode_schema(operation["responses"]["200"]["schema"]))
    )
    responses = encode_field(1, _named("200", encode_field(1, response)))
    return (
        encode_field(3, operation["description"])
        + encode_field(5, operation["operationId"])
        + _texts(6, operation["produces"])
        + _texts(7, operation["consumes"])
        + b"".join(encode_field(8, _encode_parameter(p)) for p in operation["parameters"])
        + encode_field(9, responses)
        + _extensions(13, operation)
    )


def _encode_parameter(parameter: Mapping[str, Any]) -> bytes:
    """A ParametersItem: body, query or path."""
    if parameter["in"] == "body":
        body = encode_field(2, parameter["name"]) + encode_field(3, "body") + encode_field(4, True)
        return encode_field(1, encode_field(1, body + encode_field(5, _encode_schema(parameter["schema"]))))
    inner = encode_field(1, True) if parameter.get("required") else b""
    inner += (
        encode_field(2, parameter["in"])
        + encode_field(3, parameter.get("description", ""))
        + encode_field(4, parameter["name"])
    )
    is_query = parameter["in"] == "query"
    inner += encode_field(6 if is_query else 5, parameter["type"]) + encode_field(20 if is_query else 19, True)
    return encode_field(1, encode_field(2, encode_field(3 if is_query else 4, inner)))


_SCHEMA_TEXT = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_SCHEMA_NUMBER = {"maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "uniqueItems": 16}


def _encode_schema(schema: Mapping[str, Any]) -> bytes:
    out = b""
    for key, value in schema.items():
        if key in _SCHEMA_TEXT:
            out += encode_field(_SCHEMA_TEXT[key], str(value))
        elif key in _SCHEMA_NUMBER:
            out += encode_field(_SCHEMA_NUMBER[key], value)
        elif key == "default":
            out += encode_field(5, _any(value))
        elif key == "required":
            out += _texts(19, value)
        elif key == "enum":
            out += b"".join(encode_field(20, _any(item)) for item in value)
        elif key == "additionalProperties":
            out += encode_field(21, encode_field(1, _encode_schema(value)))
        elif key == "type":
            out += encode_field(22, encode_field(1, value))
        elif key == "items":
            out += encode_field(23, encode_field(1, _encode_schema(value)))
        elif key == "properties":
            named = b"".join(encode_field(1, _named(name, _encode_schema(inner))) for name, inner in value.items())
            out += encode_field(25, named)
    return out + _extensions(31, schema)
