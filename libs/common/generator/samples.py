"""A full, deterministic example of any message: every field is set, so that its bytes show every field's form."""

from __future__ import annotations

import types
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel

M = TypeVar("M", bound=BaseModel)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def sample(model: type[M]) -> M:
    """The example of `model`; a field that is bound to a form names its own. Raises TypeError for a field whose type has no example here: add one."""
    return model.model_validate({
        name: field.examples[0] if field.examples else _value(field.annotation, f"{model.__name__}.{name}")
        for name, field in model.model_fields.items()
    })  # fmt: skip


def _value(annotation: Any, where: str) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return {"key": ["value", 1, True]}
    if origin is Literal:
        return next(a for a in arguments if a != "")
    if origin in (Union, types.UnionType):
        return _value(next(a for a in arguments if a is not type(None)), where)
    if origin is list:
        return [_value(arguments[0], where)]
    if origin is dict:
        return {"key": _value(arguments[1], where)}
    if origin is not None and hasattr(annotation, "__metadata__"):
        return _value(arguments[0], where)
    simple: dict[Any, Any] = {str: "sample", int: 7, float: 0.5, bool: True, datetime: MOMENT}
    if annotation in simple:
        return simple[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return sample(annotation)
    if getattr(annotation, "__name__", "") == "AwareDatetime":
        return MOMENT
    raise TypeError(f"{where}: no example for {annotation!r}")
