"""Who made an object: noted by the writer from the envelope, and changed by nobody."""

from __future__ import annotations

from typing import TypeVar

from libs.common.access.principal import Principal
from libs.common.resources.meta import GROUP, Resource

R = TypeVar("R", bound=Resource)
CREATOR = f"{GROUP}/creator"
"""Annotation with the maker's principal id. Objects of before it was kept have none."""


def creator_of(resource: Resource) -> str:
    """The maker's principal id, "" = not known."""
    return (resource.metadata.annotations or {}).get(CREATOR, "")


def keep(principal: Principal, old: R | None, new: R) -> R:
    """`new` with the maker of `old`, or with the caller where it is being made, whatever the caller wrote there."""
    maker = principal.principal_id if old is None else creator_of(old)
    if creator_of(new) == maker and (maker or CREATOR not in (new.metadata.annotations or {})):
        return new
    annotations = {key: text for key, text in (new.metadata.annotations or {}).items() if key != CREATOR}
    if maker:
        annotations[CREATOR] = maker
    metadata = new.metadata.model_copy(update={"annotations": annotations or None})
    return new.model_copy(update={"metadata": metadata})
