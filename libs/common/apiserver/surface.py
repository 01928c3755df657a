"""The whole API surface as one table: every group, version, resource and subresource that the gateway answers.

Discovery, OpenAPI, access reviews and routes are made from it, so that none of them can promise what another lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.apiserver.review_kinds import AccessReview
from libs.common.apiserver.virtual_kinds import ClusterRegistration, Kubeconfig, TokenRequest
from libs.common.resources.meta import GROUP, VERSION, Resource
from libs.common.resources.registry import RESOURCE_TYPES


@dataclass(frozen=True, slots=True)
class Subresource:
    name: str
    kind: str
    verbs: tuple[str, ...]
    model: type[Resource] | None = None


@dataclass(frozen=True, slots=True)
class ApiResource:
    """One row of discovery. `model` None = a kind of Kubernetes itself, which clients know."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    verbs: tuple[str, ...]
    namespaced: bool = False
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    model: type[Resource] | None = None

    @property
    def group_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


KUBECONFIGS = ApiResource(GROUP, VERSION, "kubeconfigs", "kubeconfig", "Kubeconfig", ("create",), model=Kubeconfig)
TOKEN_REQUESTS = ApiResource(
    GROUP, VERSION, "tokenrequests", "tokenrequest", "TokenRequest", ("create",), model=TokenRequest
)
ACCESS_REVIEWS = ApiResource(
    GROUP, VERSION, "accessreviews", "accessreview", "AccessReview", ("create",), model=AccessReview
)
VIRTUAL = (KUBECONFIGS, TOKEN_REQUESTS, ACCESS_REVIEWS)
"""Answered to everybody who is a user here, for themselves or with what they may see, and never stored."""
REGISTRATION = Subresource("registration", "ClusterRegistration", ("create",), ClusterRegistration)


def _stored() -> list[ApiResource]:
    rows = []
    for rtype in RESOURCE_TYPES:
        subresources = []
        if rtype.plural == "clusters":
            subresources.append(REGISTRATION)
        if rtype.has_status and "update" in rtype.verbs:
            subresources.append(Subresource("status", rtype.kind, ("get", "patch", "update")))
        rows.append(
            ApiResource(
                GROUP, VERSION, rtype.plural, rtype.singular, rtype.kind, rtype.verbs, False, rtype.short_names,
                rtype.categories, tuple(subresources), rtype.model,
            )
        )  # fmt: skip
    return rows


BUILT_IN = (
    ApiResource("", "v1", "events", "event", "Event", ("get", "list", "watch"), namespaced=True, short_names=("ev",)),
    ApiResource("", "v1", "namespaces", "namespace", "Namespace", ("get", "list", "watch"), short_names=("ns",)),
    ApiResource(
        "authentication.k8s.io", "v1", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview", ("create",)
    ),
    ApiResource(
        "authorization.k8s.io",
        "v1",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        "SelfSubjectAccessReview",
        ("create",),
    ),
    ApiResource(
        "authorization.k8s.io",
        "v1",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        "SelfSubjectRulesReview",
        ("create",),
    ),
)
"""Kubernetes' own kinds that clients ask any server for. Events and namespaces are empty collections: the hub has none, and
`kubectl describe`, k9s and others ask for them and take an empty answer better than a missing group."""

SURFACE: tuple[ApiResource, ...] = (*BUILT_IN, *_stored(), *VIRTUAL)
GROUP_VERSIONS: tuple[tuple[str, str], ...] = tuple(
    dict.fromkeys(
        (r.group, r.version) for r in sorted(SURFACE, key=lambda r: (r.group != "", r.group != GROUP, r.group))
    )
)
"""Core first, ours next: the order in which kubectl prefers groups for a resource name."""


def find_resource(group: str, plural: str, subresource: str = "") -> ApiResource | None:
    """The row of a resource that is served, in any version; None when neither it nor the subresource is."""
    for row in SURFACE:
        if row.group == group and row.plural == plural:
            return row if not subresource or any(s.name == subresource for s in row.subresources) else None
    return None
