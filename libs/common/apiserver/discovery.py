"""Discovery documents: the aggregated form (v2, v2beta1) that clients ask for first, and the legacy forms. Pure.

The gateway serves them with ETag and `Vary: Accept`. Kubernetes page: "The Kubernetes API" (Discovery API).
"""

from __future__ import annotations

from typing import Any

from libs.common.apiserver.surface import GROUP_VERSIONS, SURFACE, ApiResource

MEDIA_TYPE = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def render_aggregated(version: str, *, core: bool) -> dict[str, Any]:
    """All groups with all resources in one document: of `/api` (core) or `/apis`. `version` is v2 or v2beta1."""
    items: list[dict[str, Any]] = []
    for group in dict.fromkeys(g for g, _ in GROUP_VERSIONS if (g == "") == core):
        versions = []
        for group_version in (v for g, v in GROUP_VERSIONS if g == group):
            resources = [_aggregated(r) for r in SURFACE if (r.group, r.version) == (group, group_version)]
            versions.append({"version": group_version, "resources": resources, "freshness": "Current"})
        items.append({"metadata": {"name": group} if group else {}, "versions": versions})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def render_api_versions() -> dict[str, Any]:
    """Legacy `/api`."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def render_group_list() -> dict[str, Any]:
    """Legacy `/apis`."""
    groups = [render_group(group) for group in dict.fromkeys(g for g, _ in GROUP_VERSIONS if g)]
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{k: v for k, v in g.items() if k not in ("kind", "apiVersion")} for g in groups if g],
    }


def render_group(group: str) -> dict[str, Any] | None:
    """`/apis/<group>`; None when there is no such group."""
    versions = [{"groupVersion": f"{g}/{v}", "version": v} for g, v in GROUP_VERSIONS if g == group and g]
    if not versions:
        return None
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def render_resources(group: str, version: str) -> dict[str, Any] | None:
    """`/apis/<group>/<version>` or `/api/v1`; None when that is not served."""
    if (group, version) not in GROUP_VERSIONS:
        return None
    resources: list[dict[str, Any]] = []
    for row in SURFACE:
        if (row.group, row.version) != (group, version):
            continue
        entry: dict[str, Any] = {
            "name": row.plural, "singularName": row.singular, "namespaced": row.namespaced, "kind": row.kind,
            "verbs": list(row.verbs),
        }  # fmt: skip
        if row.short_names:
            entry["shortNames"] = list(row.short_names)
        if row.categories:
            entry["categories"] = list(row.categories)
        resources.append(entry)
        resources += [
            {
                "name": f"{row.plural}/{sub.name}",
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": sub.kind,
                "verbs": list(sub.verbs),
            }
            for sub in row.subresources
        ]
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _aggregated(row: ApiResource) -> dict[str, Any]:
    def response_kind(kind: str) -> dict[str, str]:
        return {"group": row.group, "version": row.version, "kind": kind}

    entry: dict[str, Any] = {
        "resource": row.plural, "responseKind": response_kind(row.kind), "scope": "Namespaced" if row.namespaced else "Cluster",
        "singularResource": row.singular, "verbs": list(row.verbs),
    }  # fmt: skip
    if row.short_names:
        entry["shortNames"] = list(row.short_names)
    if row.categories:
        entry["categories"] = list(row.categories)
    if row.subresources:
        entry["subresources"] = [
            {"subresource": s.name, "responseKind": response_kind(s.kind), "verbs": list(s.verbs)}
            for s in row.subresources
        ]
    return entry
