"""Which kinds an API server has, and under which path each is reached. One answer per group version is kept for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.kube.objects import Ref

KEEP_S = 600.0
"""A kind that came since is looked for at once; one that went or changed is noticed after this long."""


@dataclass(frozen=True, slots=True)
class ApiResource:
    """One kind as the server has it. `api_version` is `v1` or `<group>/<version>`."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str]

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    def collection_path(self, namespace: str = "") -> str:
        """The path of all objects, or of those of one namespace."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        return f"{root}/namespaces/{quote(namespace, safe='')}/{self.plural}" if namespace else f"{root}/{self.plural}"

    def object_path(self, name: str, namespace: str = "") -> str:
        # RBAC names hold colons, which are plain characters in a path (RFC 3986 3.3).
        return f"{self.collection_path(namespace)}/{quote(name, safe=':')}"


class Discovery:
    """Asks the server when it does not know, and again when what it knows has grown old."""

    def __init__(self, client: KubeClient, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, dict[str, ApiResource]]] = {}

    async def resource(self, api_version: str, kind: str) -> ApiResource:
        """The resource of a kind. Raises NotFound when the server has no such kind."""
        read_at, kinds = self._known.get(api_version, (float("-inf"), {}))
        if kind not in kinds or self._monotonic() - read_at > KEEP_S:
            kinds = {r.kind: r for r in await self._read(api_version)}
            self._known[api_version] = (self._monotonic(), kinds)
        found = kinds.get(kind)
        if found is None:
            raise errors.NotFound(f"the cluster has no kind {kind} in {api_version}", kind=kind)
        return found

    async def path(self, ref: Ref) -> str:
        """The path of one object. Raises NotFound for an unknown kind, Invalid for a namespace where none belongs or is missing."""
        resource = await self.resource(ref.api_version, ref.kind)
        if resource.namespaced != bool(ref.namespace):
            wanted = "needs" if resource.namespaced else "cannot have"
            raise errors.Invalid(f"{ref} {wanted} a namespace")
        return resource.object_path(ref.name, ref.namespace)

    async def everything(self) -> tuple[list[ApiResource], list[str]]:
        """Every kind in the version that the server prefers, and the group versions that did not answer (dead aggregated APIs)."""
        versions = ["v1"]
        groups = await self._client.get("/apis")
        versions += [group["preferredVersion"]["groupVersion"] for group in groups.get("groups") or ()]
        found: list[ApiResource] = []
        silent: list[str] = []
        for version in versions:
            try:
                found += await self._read(version)
            except (errors.Unavailable, errors.Timeout, errors.NotFound, errors.Denied):
                silent.append(version)
        return found, silent

    async def _read(self, api_version: str) -> list[ApiResource]:
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        try:
            document = await self._client.get(root)
        except errors.NotFound as exc:
            raise errors.NotFound(f"the cluster has no API version {api_version}") from exc
        return [
            _parse_resource(api_version, item) for item in document.get("resources") or () if "/" not in item["name"]
        ]


def _parse_resource(api_version: str, item: Mapping[str, Any]) -> ApiResource:
    return ApiResource(
        api_version,
        str(item["kind"]),
        str(item["name"]),
        bool(item.get("namespaced")),
        frozenset(item.get("verbs") or ()),
    )
