"""The rules of `metadata`: what the server sets, what a client may, and what can't change once it is set.

Pure: documents and values in, documents out; the writer calls it. Follows the API conventions ("Metadata").
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from libs.common import errors
from libs.common.apiserver import validate
from libs.common.resources.meta import API_VERSION, GROUP, ObjectMeta, Resource, check_label, check_name, format_time
from libs.common.resources.registry import BY_MODEL

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated names: no vowels and no look-alikes, as in Kubernetes."""
_MAX_ANNOTATIONS_BYTES = 256 * 1024
_KEY_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_SERVER_SET = ("uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion")


def check_type(model: type[Resource], document: Mapping[str, Any]) -> None:
    """apiVersion and kind must be those of the URL. Raises BadRequest."""
    version, kind = document.get("apiVersion", API_VERSION), document.get("kind", model.KIND)
    if version != API_VERSION:
        raise errors.BadRequest(
            f"the API version in the data ({version}) does not match the expected API version ({API_VERSION})"
        )
    if kind != model.KIND:
        raise errors.BadRequest(f"the kind in the data ({kind}) does not match the expected kind ({model.KIND})")
    if not isinstance(document.get("metadata", {}), Mapping):
        raise errors.BadRequest("metadata must be an object")


def generate_name(prefix: str) -> str:
    """`prefix` with five random characters; the prefix is cut so that the name stays a label."""
    return prefix[:58] + "".join(random.choice(_ALPHABET) for _ in range(5))


def prepare_create(model: type[Resource], document: Mapping[str, Any], name: str, now: datetime) -> dict[str, Any]:
    """The document to create: name settled, server-set fields set, status left to the hub."""
    metadata = dict(document.get("metadata") or {})
    given = metadata.get("name") or ""
    if name and given and name != given:
        raise errors.BadRequest(f"the name of the object ({given}) does not match the name on the URL ({name})")
    if metadata.get("resourceVersion"):
        raise errors.BadRequest("resourceVersion should not be set on objects to be created")
    for field in (*_SERVER_SET, "managedFields"):
        metadata.pop(field, None)
    final = name or given
    if not final and isinstance(metadata.get("generateName"), str) and metadata["generateName"]:
        final = generate_name(metadata["generateName"])
    if not final:
        raise validate.required_field(model, "", "metadata.name", "name or generateName is required")
    metadata |= {"name": final, "uid": str(uuid.uuid4()), "creationTimestamp": format_time(now), "generation": 1}
    created = {**document, "apiVersion": API_VERSION, "kind": model.KIND, "metadata": metadata}
    created.pop("status", None)
    return created


def prepare_update(
    model: type[Resource], old: Mapping[str, Any], document: Mapping[str, Any], subresource: str
) -> dict[str, Any]:
    """The document to write over `old`: server-set fields kept, spec and status each only by its own door.

    Raises Conflict when the client's uid or resourceVersion is not that of `old`.
    """
    before, metadata = old["metadata"], dict(document.get("metadata") or {})
    name = before["name"]
    if metadata.get("name", name) != name:
        raise errors.BadRequest(
            f"the name of the object ({metadata.get('name')}) does not match the name on the URL ({name})"
        )
    check_precondition(model, old, metadata.get("uid") or "", metadata.get("resourceVersion") or "")
    if subresource == "status":
        return {**old, "status": document.get("status", {})}
    for field in (*_SERVER_SET, "generateName"):
        metadata.pop(field, None)
        if before.get(field) is not None:
            metadata[field] = before[field]
    metadata["name"] = name
    updated = {**document, "apiVersion": API_VERSION, "kind": model.KIND, "metadata": metadata}
    updated.pop("status", None)
    if "status" in old:
        updated["status"] = old["status"]
    if before.get("deletionTimestamp"):
        _check_no_new_finalizers(model, name, before, metadata)
    return updated


def set_generation(old: Mapping[str, Any], new: dict[str, Any]) -> None:
    """The generation counts changes of spec and nothing else."""
    generation = int(old["metadata"].get("generation") or 1)
    new["metadata"]["generation"] = generation + (old.get("spec") != new.get("spec"))


def check_precondition(model: type[Resource], old: Mapping[str, Any], uid: str, resource_version: str) -> None:
    """Raises Conflict unless the object is still the one that the client means."""
    metadata = old["metadata"]
    name, path = metadata["name"], f"{BY_MODEL[model].plural}.{GROUP}"
    if uid and uid != metadata.get("uid"):
        raise errors.Conflict(
            f'Operation cannot be fulfilled on {path} "{name}": Precondition failed: '
            f"UID in precondition: {uid}, UID in object meta: {metadata.get('uid')}",
            kind=BY_MODEL[model].plural,
            name=name,
        )
    if resource_version and resource_version != metadata.get("resourceVersion"):
        raise stale(model, name)


def stale(model: type[Resource], name: str) -> errors.Conflict:
    """The optimistic-lock error in the words that client libraries and people know."""
    path = BY_MODEL[model].plural
    return errors.Conflict(
        f'Operation cannot be fulfilled on {path}.{GROUP} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
        kind=path,
        name=name,
    )


def check_metadata(model: type[Resource], metadata: ObjectMeta, *, name_is_label: bool = False) -> list[errors.Cause]:
    """What is wrong with name, labels, annotations and finalizers; empty = nothing."""
    causes: list[errors.Cause] = []
    name = metadata.name or ""
    try:
        (check_label if name_is_label else check_name)(name)
    except ValueError as exc:
        causes.append(errors.Cause("metadata.name", f"Invalid value: {validate.shown(name)}: {exc}"))
    for key, value in (metadata.labels or {}).items():
        if (why := qualified_name_error(key)) is not None:
            causes.append(errors.Cause("metadata.labels", f"Invalid value: {validate.shown(key)}: {why}"))
        if (why := label_value_error(value)) is not None:
            causes.append(errors.Cause("metadata.labels", f"Invalid value: {validate.shown(value)}: {why}"))
    size = 0
    for key, value in (metadata.annotations or {}).items():
        size += len(key.encode()) + len(value.encode())
        if (why := qualified_name_error(key.lower())) is not None:
            causes.append(errors.Cause("metadata.annotations", f"Invalid value: {validate.shown(key)}: {why}"))
    if size > _MAX_ANNOTATIONS_BYTES:
        causes.append(
            errors.Cause(
                "metadata.annotations",
                f"Too long: may not be more than {_MAX_ANNOTATIONS_BYTES} bytes",
                "FieldValueTooLong",
            )
        )
    for index, finalizer in enumerate(metadata.finalizers or ()):
        if (why := qualified_name_error(finalizer)) is not None or "/" not in finalizer:
            why = why or "must be a qualified name such as example.com/cleanup"
            causes.append(
                errors.Cause(f"metadata.finalizers[{index}]", f"Invalid value: {validate.shown(finalizer)}: {why}")
            )
    return causes


def qualified_name_error(key: str) -> str | None:
    """Why `key` is no qualified name (`prefix/name`), or None."""
    prefix, slash, name = key.rpartition("/")
    if slash:
        try:
            check_name(prefix)
        except ValueError:
            return "prefix part must be a lower-case RFC 1123 subdomain"
    if len(name) > 63:
        return "name part must be no more than 63 characters"
    if not _KEY_NAME.fullmatch(name):
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character"
        )
    return None


def label_value_error(value: str) -> str | None:
    """Why `value` is no label value, or None."""
    if len(value) > 63:
        return "must be no more than 63 characters"
    if not _LABEL_VALUE.fullmatch(value):
        return (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
            "and end with an alphanumeric character"
        )
    return None


def _check_no_new_finalizers(
    model: type[Resource], name: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    added = sorted(set(after.get("finalizers") or ()) - set(before.get("finalizers") or ()))
    if added:
        raise validate.forbidden_field(
            model, name, "metadata.finalizers",
            f"no new finalizers can be added if the object is being deleted, found new finalizers {validate.shown(added)}",
        )  # fmt: skip
