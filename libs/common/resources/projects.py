"""Kinds of the project service: Project, a group of namespaces in one or many clusters."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from libs.common.resources.meta import ConditionedStatus, Label, Model, Resource


class ProjectNamespace(Model):
    cluster: Label = Field(description="Name of the Cluster.")
    namespace: Label = Field(description="Name of the namespace in that cluster.")


class ProjectSpec(Model):
    display_name: str = Field(default="", max_length=256)
    description: str = Field(default="", max_length=4096)
    namespaces: list[ProjectNamespace] = Field(default_factory=list, max_length=2000)


class ProjectStatus(ConditionedStatus):
    pass


class Project(Resource):
    """A group of namespaces with members. A namespace belongs to at most one project."""

    KIND: ClassVar[str] = "Project"
    spec: ProjectSpec = Field(default_factory=ProjectSpec)
    status: ProjectStatus = Field(default_factory=ProjectStatus)
