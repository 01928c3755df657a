"""Kinds of the project service: Project, a group of namespaces in one or many clusters."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from libs.common.resources.meta import ConditionedStatus, Label, Model, Resource, Time


class ProjectNamespace(Model):
    cluster: Label = Field(description="Name of the Cluster.")
    namespace: Label = Field(description="Name of the namespace in that cluster.")
    cluster_uid: str = Field(
        default="", max_length=64, description="Filled in by the hub: a later cluster of the same name is another one."
    )
    create: bool = Field(default=False, description="True: the hub makes the namespace where there is none.")
    share: dict[str, str] = Field(
        default_factory=dict,
        max_length=64,
        description="Its part of the project's quota, by resource, such as requests.cpu: 500m. Where nothing is given the hub fills in an equal part of what is left.",
    )
    equal_share: list[str] = Field(
        default_factory=list,
        max_length=64,
        description="Resources of the share that the hub filled in: they stay an equal part of what is left when namespaces or the quota change.",
    )


class ContainerLimits(Model):
    """What a container in the project's namespaces gets that says nothing itself, and the most that it may ask for."""

    default: dict[str, str] = Field(default_factory=dict, max_length=16, description="Limits, such as memory: 512Mi.")
    default_request: dict[str, str] = Field(default_factory=dict, max_length=16, description="Requests.")
    max: dict[str, str] = Field(default_factory=dict, max_length=16, description="The highest limits.")


class ProjectSpec(Model):
    display_name: str = Field(default="", max_length=256)
    description: str = Field(default="", max_length=4096)
    namespaces: list[ProjectNamespace] = Field(default_factory=list, max_length=2000)
    quota: dict[str, str] = Field(
        default_factory=dict,
        max_length=64,
        description="The most that all namespaces together, over all clusters, may use, by resource as in a ResourceQuota; empty = no limit.",
    )
    container_limits: ContainerLimits = Field(default_factory=ContainerLimits)
    isolated: bool = Field(
        default=False, description="True: pods are reached from namespaces of the same project in the cluster alone."
    )
    default_deny: bool = Field(
        default=False,
        description="True: pods are neither reached nor reach anything but DNS; together with isolated, also namespaces of the same project.",
    )
    guarded: bool = Field(
        default=False,
        description="True: the cluster refuses what would get around isolated and defaultDeny, by others than the hub: another project's label on a namespace, NetworkPolicies that allow more.",
    )
    pod_security: Literal["", "privileged", "baseline", "restricted"] = Field(
        default="", description="The Pod Security level that the namespaces enforce; empty = what the cluster does."
    )
    labels: dict[str, str] = Field(default_factory=dict, max_length=64, description="Kept on each namespace.")
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64, description="Kept on each namespace.")


class ProjectCluster(Model):
    """How far a cluster is with what the project says."""

    name: str
    state: Literal["Applied", "Pending", "Failed"] = Field(
        description="Applied; Pending: the cluster has not taken it over yet, perhaps because it is away; Failed: see the message."
    )
    since: Time
    message: str = ""


class ObservedNamespace(Model):
    """What the cluster's agent last said of one of the project's namespaces."""

    cluster: str
    namespace: str
    uid: str = Field(default="", description="The namespace's own uid; empty = it is not there.")
    foreign: bool = Field(
        default=False,
        description="True: the hub was to make it, and what is there is somebody else's; the project has no rights in it and does not show it.",
    )
    used: dict[str, str] = Field(
        default_factory=dict,
        description="What of its share is used, by resource; left out in projects of more than 500 namespaces.",
    )


class ProjectStatus(ConditionedStatus):
    """Conditions: Applied; Drifted while a cluster's was put right within the last hour."""

    clusters: list[ProjectCluster] = Field(default_factory=list)
    namespaces: list[ObservedNamespace] = Field(default_factory=list)
    used: dict[str, str] = Field(
        default_factory=dict, description="What of the quota all namespaces together use, as far as it is known."
    )


class Project(Resource):
    """A group of namespaces with members. A namespace belongs to at most one project."""

    KIND: ClassVar[str] = "Project"
    spec: ProjectSpec = Field(default_factory=ProjectSpec)
    status: ProjectStatus = Field(default_factory=ProjectStatus)


class ProjectTemplateSpec(Model):
    display_name: str = Field(default="", max_length=256)
    description: str = Field(default="", max_length=4096)
    clusters: list[Label] = Field(
        default_factory=list,
        max_length=100,
        description="In each of them the project begins with a namespace of its own name, which the hub makes.",
    )
    max_per_person: int = Field(
        default=1, ge=1, le=100, description="Projects made from it that one person has at a time."
    )
    quota: dict[str, str] = Field(
        default_factory=dict, max_length=64, description="As in a Project, and so the following."
    )
    container_limits: ContainerLimits = Field(default_factory=ContainerLimits)
    isolated: bool = False
    default_deny: bool = False
    guarded: bool = False
    pod_security: Literal["", "privileged", "baseline", "restricted"] = ""
    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    annotations: dict[str, str] = Field(default_factory=dict, max_length=64)


class ProjectTemplate(Resource):
    """What people may make projects from by themselves: who has the right `create` on `projecttemplates/projects`."""

    KIND: ClassVar[str] = "ProjectTemplate"
    spec: ProjectTemplateSpec = Field(default_factory=ProjectTemplateSpec)
