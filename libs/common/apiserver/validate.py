"""From an untrusted document to a valid model: unknown fields, duplicate keys, and pydantic's findings in Kubernetes' words.

Called by the writer for every create, update and patch, and by the gateway for duplicate keys, which only the raw text
shows. The wording follows Kubernetes' `field.Error` ("spec.enabled: Invalid value: ...") because people and tools read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from libs.common import errors
from libs.common.resources.meta import GROUP, VERSION, Resource
from libs.common.resources.registry import BY_MODEL
from libs.common.resources.unknown import find_unknown_fields

R = TypeVar("R", bound=Resource)

_TYPE_NAMES = {
    "string_type": "string", "bool_type": "boolean", "int_type": "integer", "float_type": "number", "list_type": "array",
    "dict_type": "object", "model_type": "object", "model_attributes_type": "object", "datetime_type": "date-time",
    "bool_parsing": "boolean", "int_parsing": "integer", "tuple_type": "array",
}  # fmt: skip
_MAX_SHOWN = 128


def check_fields(
    model: type[Resource], document: Mapping[str, Any], mode: str, duplicates: Sequence[str] = ()
) -> list[str]:
    """What `fieldValidation` says of a document: warnings for Warn, nothing for Ignore. Raises BadRequest for Strict."""
    if mode == "Ignore":
        return []
    found = [f'duplicate field "{path}"' for path in duplicates]
    found += [f'unknown field "{path}"' for path in find_unknown_fields(model, dict(document))]
    if found and mode == "Strict":
        raise errors.BadRequest(
            f'{model.KIND} in version "{VERSION}" cannot be handled as a {model.KIND}: strict decoding error: {", ".join(found)}'
        )
    return found


def parse_object(model: type[R], document: Mapping[str, Any], name: str = "") -> R:
    """The model of a document from outside. Never takes `private`. Raises Invalid with one cause for each wrong field.

    Types are strict as in Kubernetes: "true" is no boolean. Nulls count as absent.
    """
    cleaned = {k: v for k, v in without_nulls(document).items() if k != "private"}
    try:
        return model.model_validate_json(json.dumps(cleaned, allow_nan=False), strict=True)
    except ValidationError as exc:
        raise invalid(model, name, causes_of(exc)) from exc
    except ValueError as exc:
        raise errors.BadRequest("the document holds a number that JSON does not know (NaN or infinity)") from exc


def without_nulls(value: Any) -> Any:
    """The same without map entries that are null, at any depth; nulls in lists stay and are refused by the model."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def causes_of(exc: ValidationError) -> list[errors.Cause]:
    """One cause for each finding, with a JSON path such as `spec.rules[0].verbs`."""
    return [_cause(found) for found in exc.errors(include_url=False)]


def invalid(model: type[Resource], name: str, causes: Sequence[errors.Cause]) -> errors.Invalid:
    """The 422 that kubectl prints: `User.management.herdsman.dev "bob" is invalid: spec.enabled: ...`."""
    told = [f"{c.field}: {c.message}" if c.field else c.message for c in causes]
    text = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    return errors.Invalid(
        f'{model.KIND}.{GROUP} "{name}" is invalid: {text}', kind=model.KIND, name=name, causes=causes
    )


def invalid_field(model: type[Resource], name: str, field: str, value: Any, why: str) -> errors.Invalid:
    """One wrong value: what strategies raise for business rules."""
    return invalid(model, name, [errors.Cause(field, f"Invalid value: {shown(value)}: {why}")])


def forbidden_field(model: type[Resource], name: str, field: str, why: str) -> errors.Invalid:
    """A field that may not be set or changed now."""
    return invalid(model, name, [errors.Cause(field, f"Forbidden: {why}", "FieldValueForbidden")])


def required_field(model: type[Resource], name: str, field: str, why: str = "") -> errors.Invalid:
    """A field that is missing."""
    return invalid(
        model, name, [errors.Cause(field, f"Required value{f': {why}' if why else ''}", "FieldValueRequired")]
    )


def denied(
    principal_name: str, verb: str, model: type[Resource], name: str = "", why: str = "", subresource: str = ""
) -> errors.Denied:
    """The 403 in the words that people know from Kubernetes."""
    plural = BY_MODEL[model].plural
    path = f"{plural}/{subresource}" if subresource else plural
    subject = f'{plural}.{GROUP} "{name}"' if name else f"{plural}.{GROUP}"
    reason = f": {why}" if why else ""
    return errors.Denied(
        f'{subject} is forbidden: User "{principal_name}" cannot {verb} resource "{path}" in API group "{GROUP}"{reason}',
        kind=plural,
        name=name,
    )


def shown(value: Any) -> str:
    """A value as JSON, short enough for one line."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def _cause(found: Any) -> errors.Cause:
    kind, path, value, context = found["type"], _path(found["loc"]), found.get("input"), found.get("ctx", {})
    if kind == "missing":
        return errors.Cause(path, "Required value", "FieldValueRequired")
    if kind in _TYPE_NAMES:
        message = f"Invalid value: {shown(_kind_of(value))}: {path} in body must be of type {_TYPE_NAMES[kind]}: {shown(_kind_of(value))}"
        return errors.Cause(path, message, "FieldValueTypeInvalid")
    if kind == "literal_error":
        return errors.Cause(
            path,
            f"Unsupported value: {shown(value)}: supported values: {_supported(context)}",
            "FieldValueNotSupported",
        )
    if kind == "string_too_long":
        return errors.Cause(path, f"Too long: may not be more than {context['max_length']} bytes", "FieldValueTooLong")
    if kind == "too_long":
        return errors.Cause(
            path,
            f"Too many: {context.get('actual_length')}: must have at most {context['max_length']} items",
            "FieldValueTooMany",
        )
    if kind == "too_short":
        return errors.Cause(
            path, f"Invalid value: {shown(value)}: {path} in body should have at least {context['min_length']} items"
        )
    message = str(context["error"]) if "error" in context else str(found["msg"])
    return errors.Cause(path, f"Invalid value: {shown(value)}: {message}")


def _supported(context: Mapping[str, Any]) -> str:
    return str(context.get("expected", "")).replace("'", '"').replace(" or ", ", ")


def _kind_of(value: Any) -> str:
    """Kubernetes names the type it got, not the value."""
    names = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def _path(location: Sequence[int | str]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text
