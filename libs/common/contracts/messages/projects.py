"""Projects that are made from templates, and namespaces that are made or moved."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ProjectMake(BaseModel):
    """Make a project from a template, with what that says and no more."""

    identity: str
    request_id: str = ""
    template: str = Field(max_length=253)
    name: str = Field(max_length=63)
    display_name: str = Field(default="", max_length=256)
    description: str = Field(default="", max_length=4096)


class ProjectMade(BaseModel):
    document: dict[str, Any]


class NamespaceCreate(BaseModel):
    """Have a namespace made in a cluster. `project` empty = the only one of that cluster in which the caller may do that."""

    identity: str
    request_id: str = ""
    cluster: str = Field(max_length=63)
    namespace: str = Field(max_length=63)
    project: str = Field(default="", max_length=63)
    dry_run: bool = False
    labels: dict[str, str] = Field(
        default_factory=dict, max_length=64, description="Wanted on it: refused where the project does not keep them."
    )
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64)


class NamespaceCreated(BaseModel):
    """`uid` is the namespace's own, and all that the project says of it is applied; empty = the project has it, and `pending` says what is missing."""

    project: str
    cluster: str
    namespace: str
    uid: str = ""
    pending: str = ""


class NamespaceMove(BaseModel):
    """Move a namespace from the project that has it into another, in one step. `source`: refused when another project has it now."""

    identity: str
    request_id: str = ""
    cluster: str = Field(max_length=63)
    namespace: str = Field(max_length=63)
    project: str = Field(max_length=63)
    source: str = Field(default="", max_length=63)


class NamespaceMoved(BaseModel):
    """Both projects as they are stored now; the same twice where the namespace was in the wanted project already."""

    source: dict[str, Any]
    target: dict[str, Any]
