"""What a write makes of the document before it: update, merge patch, JSON patch or server-side apply, with its managers.

Pure; the writer calls `compute`, then lets the strategy have its say, then `record`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from libs.common import errors
from libs.common.apiserver import managed_fields, metadata, patch, validate
from libs.common.apiserver.apply import apply
from libs.common.apiserver.managed_fields import Manager
from libs.common.contracts.messages import ResourceWrite
from libs.common.resources import codec
from libs.common.resources.meta import ManagedFieldsEntry, Resource, format_time

UNKNOWN_MANAGER = "unknown"


@dataclass(frozen=True, slots=True)
class Change:
    """The new document without managedFields, and its managers: final after an apply, else those before the change.

    `may_retry`: the client named no version, so the same change may be made on a newer object.
    """

    document: dict[str, Any]
    managers: list[Manager]
    applied: bool = False
    may_retry: bool = False
    warnings: list[str] = field(default_factory=list)


def check_document(model: type[Resource], body: Any) -> dict[str, Any]:
    """The body as a document of this kind. Raises BadRequest."""
    if not isinstance(body, Mapping):
        raise errors.BadRequest(f"the body must be a JSON object of kind {model.KIND}")
    document = validate.without_nulls(body)
    metadata.check_type(model, document)
    return dict(document)


def compute(model: type[Resource], old: dict[str, Any], request: ResourceWrite, now: datetime) -> Change:
    """The change that the request asks for on `old`. Raises BadRequest, Invalid, Conflict, UnsupportedMediaType."""
    if request.verb == "update":
        document = check_document(model, request.body)
        if not document.get("metadata", {}).get("resourceVersion"):
            raise validate.invalid(
                model, request.name,
                [errors.Cause("metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")],
            )  # fmt: skip
        return _written(model, old, document, request, may_retry=False)
    if request.patch_type == "apply":
        return _applied(model, old, request, now)
    if request.patch_type == "merge":
        if not isinstance(request.body, Mapping):
            raise errors.BadRequest("a merge patch must be a JSON object")
        patched = patch.merge_patch(old, request.body)
    elif request.patch_type == "json":
        patched = patch.json_patch(old, request.body)
    else:
        raise errors.UnsupportedMediaType(
            f"patch type {request.patch_type!r} is not supported: use json, merge or apply"
        )
    document = check_document(model, patched)
    return _written(model, old, document, request, may_retry=not _names_version(request))


def _written(
    model: type[Resource], old: dict[str, Any], document: dict[str, Any], request: ResourceWrite, *, may_retry: bool
) -> Change:
    """The change of a write that is no apply. A client may correct managedFields by it: kubectl does when it moves from
    client-side to server-side apply. Without the key the old ones stay; a list with one empty entry forgets them all."""
    warnings = validate.check_fields(model, document, request.options.field_validation)
    corrected = not request.subresource and document.get("metadata", {}).get("managedFields") is not None
    managers = managed_fields.parse_managers(document if corrected else old)
    final = metadata.prepare_update(model, old, document, request.subresource)
    return Change(_bare(final), managers, may_retry=may_retry, warnings=warnings)


def _applied(model: type[Resource], old: dict[str, Any], request: ResourceWrite, now: datetime) -> Change:
    declared = check_document(model, request.body)
    if declared.get("metadata", {}).get("managedFields"):
        raise errors.BadRequest("metadata.managedFields must be nil")
    warnings = validate.check_fields(model, declared, request.options.field_validation)
    given = declared.get("metadata", {})
    if given.get("name", request.name) != request.name:
        raise errors.BadRequest(
            f"the name of the object ({given['name']}) does not match the name on the URL ({request.name})"
        )
    metadata.check_precondition(model, old, given.get("uid") or "", given.get("resourceVersion") or "")
    merged, managers = apply(
        old, managed_fields.parse_managers(old), _shaped(declared), request.options.field_manager or UNKNOWN_MANAGER, now,
        force=request.options.force, subresource=request.subresource,
    )  # fmt: skip
    document = _bare(metadata.prepare_update(model, old, merged, request.subresource))
    return Change(document, managers, True, not given.get("resourceVersion"), warnings)


def record(
    old: dict[str, Any] | None, new: Resource, request: ResourceWrite, now: datetime, change: Change | None = None
) -> None:
    """Set `metadata.managedFields` of `new`: those of the apply, or those after an ordinary write. No `change` = created."""
    name = request.options.field_manager or UNKNOWN_MANAGER
    if change is not None and change.applied:
        managers = change.managers
    elif change is None and request.patch_type == "apply":
        declared = managed_fields.leaves(_shaped(validate.without_nulls(request.body)))
        managers = [Manager(name, "Apply", frozenset(declared), format_time(now))]
    else:
        base = change.managers if change is not None else []
        managers = managed_fields.record_update(base, old or {}, codec.to_document(new), name, now, request.subresource)
    rendered = managed_fields.render_managers(managers)
    new.metadata.managed_fields = [ManagedFieldsEntry.model_validate(entry) for entry in rendered] or None


def set_generation(old: Resource, new: Resource) -> None:
    """The generation counts changes of spec and nothing else."""
    before, after = codec.to_document(old), codec.to_document(new)
    generation = old.metadata.generation or 1
    new.metadata.generation = generation + (before.get("spec") != after.get("spec"))


def is_same(old: Resource, new: Resource) -> bool:
    """Whether nothing is left to write: same document, times of managers aside, and same private part."""
    return _comparable(old) == _comparable(new) and getattr(old, "private", None) == getattr(new, "private", None)


def _bare(document: dict[str, Any]) -> dict[str, Any]:
    """The document without managedFields, which travel beside it until `record`."""
    rest = {k: v for k, v in document["metadata"].items() if k != "managedFields"}
    return {**document, "metadata": rest}


def _comparable(resource: Resource) -> dict[str, Any]:
    document = codec.to_document(resource)
    document["metadata"].pop("resourceVersion", None)
    for entry in document["metadata"].get("managedFields", ()):
        entry.pop("time", None)
    return document


def _shaped(declared: Mapping[str, Any]) -> dict[str, Any]:
    """A declared document whose parts have the shapes that field sets need. Raises BadRequest."""
    for part in ("metadata", "spec", "status"):
        if not isinstance(declared.get(part, {}), Mapping):
            raise errors.BadRequest(f"{part} must be an object")
    for path, key in managed_fields.KEYED.items():
        names = [element.removeprefix("f:") for element in path]
        items = declared.get(names[0], {}).get(names[1], [])
        if not isinstance(items, list) or not all(isinstance(i, Mapping) and key in i for i in items):
            raise errors.BadRequest(f"{'.'.join(names)} must be a list of objects with {key}")
    return dict(declared)


def _names_version(request: ResourceWrite) -> bool:
    """Whether the patch itself insists on a version of the object."""
    if isinstance(request.body, Mapping):
        given = request.body.get("metadata")
        return isinstance(given, Mapping) and bool(given.get("resourceVersion"))
    return any(isinstance(op, Mapping) and op.get("path") == "/metadata/resourceVersion" for op in request.body or ())
