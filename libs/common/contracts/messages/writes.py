"""What everybody sends: nothing, a sign of life, and writes of resources."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

PatchType = Literal["json", "merge", "apply"]


class Empty(BaseModel):
    """Nothing to say."""


class Health(BaseModel):
    """Answer of every service to `ping`: `ready` when all it depends on is caught up, else `waiting_for` says what is not."""

    service: str
    version: str
    ready: bool
    waiting_for: list[str] = Field(default_factory=list)


class WriteOptions(BaseModel):
    dry_run: bool = False
    field_manager: str = ""
    field_validation: Literal["Strict", "Warn", "Ignore"] = "Warn"
    force: bool = False
    propagation_policy: str = ""
    precondition_uid: str = ""
    precondition_resource_version: str = ""


class ResourceWrite(BaseModel):
    """One write to one object, for the owner of its kind. `body` is the document, or the patch (a list for JSON patch)."""

    identity: str
    request_id: str = ""
    verb: Literal["create", "update", "patch", "delete"]
    plural: str
    name: str = ""
    subresource: Literal["", "status"] = ""
    patch_type: PatchType | None = None
    body: Any = None
    options: WriteOptions = Field(default_factory=WriteOptions)


class ResourceWriteReply(BaseModel):
    """The object after the write (for delete: as it was); `created` decides 201 or 200; warnings become Warning headers."""

    document: dict[str, Any]
    revision: int
    created: bool = False
    deleted: bool = False
    warnings: list[str] = Field(default_factory=list)
