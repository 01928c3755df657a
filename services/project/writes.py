"""Writing a project for a method that is no plain write of the object: generation, managedFields and size as the ResourceWriter keeps them."""

from __future__ import annotations

from datetime import datetime

from libs.common.apiserver import changes, managed_fields, sizes
from libs.common.resources import codec
from libs.common.resources.meta import ManagedFieldsEntry
from libs.common.resources.projects import Project
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Put

PROJECTS = BY_MODEL[Project]


def put_of(old: Project, new: Project, manager: str, now: datetime) -> Put:
    """The write of `new` over exactly `old`, for a batch. Raises TooLarge."""
    changes.set_generation(old, new)
    before, after = codec.to_document(old), codec.to_document(new)
    managers = managed_fields.record_update(managed_fields.parse_managers(before), before, after, manager, now)
    entries = [ManagedFieldsEntry.model_validate(entry) for entry in managed_fields.render_managers(managers)]
    new.metadata.managed_fields = entries or None
    value = sizes.encode_checked(PROJECTS, new)
    return Put(PROJECTS.key(new.name), value, int(old.metadata.resource_version or 0))
