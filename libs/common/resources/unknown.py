"""Fields of a document that its kind does not declare: what `fieldValidation: Strict|Warn` reports."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel


def find_unknown_fields(model: type[BaseModel], document: Any, path: str = "") -> list[str]:
    """JSON paths of undeclared fields, in document order, e.g. `spec.rules[0].verb`."""
    if not isinstance(document, dict):
        return []
    known = {f.alias or name: f for name, f in model.model_fields.items() if not f.exclude}
    found: list[str] = []
    for key, value in document.items():
        here = f"{path}.{key}" if path else str(key)
        declared = known.get(key)
        if declared is None:
            found.append(here)
            continue
        inner = _model_in(declared.annotation)
        if inner is None:
            continue
        if isinstance(value, list):
            for index, item in enumerate(value):
                found += find_unknown_fields(inner, item, f"{here}[{index}]")
        else:
            found += find_unknown_fields(inner, value, here)
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field's type holds, directly, optionally or in a list; None for plain values and maps."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg)) is not None), None)
