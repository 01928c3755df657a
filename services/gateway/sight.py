"""What a caller sees of one kind: the filter of lists and watches, and what has to stay the same for a watch to go on. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from libs.common.access.grants import Grants
from libs.common.access.live import HasGrants
from libs.common.access.principal import Principal
from libs.common.apiserver import validate
from libs.common.apiserver.selectors import Selectors
from libs.common.resources.registry import ResourceType

Document = Mapping[str, Any]


def check_collection(grants: Grants, principal: Principal, verb: str, rtype: ResourceType) -> None:
    """Whether the caller may do this to any object of the kind at all; what they then get is filtered. Raises Denied."""
    if not grants.reaches(principal, verb, rtype.plural):
        raise validate.denied(principal.user, verb, rtype.model)


def make_filter(
    source: HasGrants, principal: Principal, verb: str, rtype: ResourceType, selectors: Selectors
) -> Callable[[Document], bool]:
    """Whether an object is selected and the caller may see it, by the grants of the moment at which it is asked."""

    def is_shown(document: Document) -> bool:
        return selectors.matches(document) and source.current.is_allowed_on(principal, verb, rtype.plural, document)

    return is_shown


def standing(grants: Grants, principal: Principal, rtype: ResourceType) -> tuple[object, ...]:
    """Equal as long as the caller sees the same objects of the kind; a watch ends when it changes, and the client lists again."""
    held = tuple(grants.held.get(i) for i in principal.principal_ids)
    whole = grants.is_allowed(principal, "watch", rtype.plural)
    clusters: object = None
    if not whole and rtype.cluster_path:
        # A right in a cluster counts while that cluster lives: which ones do is part of what is seen.
        visible = grants.visible_clusters(principal)
        clusters = dict(grants.clusters) if visible is None else visible
    selected = frozenset((s.role, grants.find_selected(s.selector)) for h in held if h is not None for s in h.selected)
    projects = grants.projects if any(h is not None and h.projects for h in held) else None
    return (grants.users.get(principal.user), held, whole, clusters, selected, grants.roles, projects)
