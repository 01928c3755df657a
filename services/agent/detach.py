"""Leaves the cluster as if the agent had never been there, proves it by listing, says so, and only then forgets who it is.

Safe to stop at any moment: the state says that detaching has begun, and every step is done again or found done. There are no
finalizers to remove because none were set.
"""

from __future__ import annotations

import asyncio
import random
import time

import structlog

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts.messages import AppliedReport, Empty
from libs.common.contracts.methods import REPORT_APPLIED
from libs.common.kube.client import METADATA_LIST, KubeClient
from libs.common.kube.discovery import ApiResource, Discovery
from libs.common.kube.objects import Document, Ref, labels_of
from services.agent.apply import NAMESPACES, release
from services.agent.claims import PROJECT, find_marks
from services.agent.owned import AGENT_PART, BINDING_KINDS, PART, ROLE_KINDS, SELECTOR, is_owned
from services.agent.pod_security import MARK, has_mark, unlabel, unlevel_step
from services.agent.state import State

REMOVAL_BUDGET_S = 120.0
REPORT_BUDGET_S = 60.0
ROUND_PAUSE_S = 0.5
MAX_LEFT = 200

DETACH_STARTED = "detach_started"
DETACH_FINISHED = "detach_finished"
DETACH_UNREPORTED = "detach_report_failed"
REMOVAL_FAILED = "removal_failed"
log = structlog.get_logger(__name__)

_ORDER = (*BINDING_KINDS, *ROLE_KINDS)


class Detacher:
    """`namespace` is the agent's own in a pod; empty for a plain process, which has no objects of its own in the cluster."""

    def __init__(
        self, client: KubeClient, discovery: Discovery, bus: Bus, cluster_uid: str, state: State, namespace: str = "",
        *, budget_s: float = REMOVAL_BUDGET_S,
    ) -> None:  # fmt: skip
        self._client = client
        self._discovery = discovery
        self._bus = bus
        self._uid = cluster_uid
        self._state = state
        self._namespace = namespace
        self._budget_s = budget_s

    async def run(self) -> None:
        """Everything: remove, prove, report, remove itself, forget."""
        log.info(DETACH_STARTED, cluster_id=self._uid)
        left = await self.remove()
        await self._report(left)
        if self._namespace:
            await self._remove_itself()
        await self._state.delete()
        log.info(DETACH_FINISHED, cluster_id=self._uid, left=len(left))

    async def remove(self) -> list[str]:
        """Remove all that we own but the agent itself. Returns what could not be removed, for people."""
        give_up = time.monotonic() + self._budget_s
        problems: dict[str, str] = {}
        suspects: list[ApiResource] | None = None
        while True:
            try:
                # The first and the last look are at every kind there is; those between, where something was.
                resources = suspects or await self._listable(problems)
                found = await self._find(resources, problems)
                if not found and suspects is None:
                    return sorted(problems.values())[:MAX_LEFT]
                await self._delete(found, problems)
                suspects = (
                    sorted({resource for resource, _ in found.values()}, key=lambda r: (r.api_version, r.kind)) or None
                )
            except errors.HerdsmanError as exc:
                log.warning(REMOVAL_FAILED, error=exc.message)
                found, suspects = {}, None
                problems["api server"] = exc.message
            else:
                problems.pop("api server", None)
            if time.monotonic() >= give_up:
                stuck = [f"{ref} is still there" for ref in found if str(ref) not in problems]
                return sorted([*problems.values(), *stuck])[:MAX_LEFT]
            await asyncio.sleep(ROUND_PAUSE_S * random.uniform(0.5, 1.5))

    async def _listable(self, problems: dict[str, str]) -> list[ApiResource]:
        resources, silent = await self._discovery.everything()
        for version in silent:
            # A dead aggregated API hides whatever it serves. Nothing of ours is there, since we could not have applied it, but say so.
            log.warning(REMOVAL_FAILED, api_version=version, error="does not answer: not looked at")
        return [r for r in resources if {"list", "delete"} <= r.verbs]

    async def _find(
        self, resources: list[ApiResource], problems: dict[str, str]
    ) -> dict[Ref, tuple[ApiResource, Document]]:
        found: dict[Ref, tuple[ApiResource, Document]] = {}
        looks = [(resource, SELECTOR) for resource in resources]
        looks += [(resource, label) for resource in resources if _is_namespaces(resource) for label in (PROJECT, MARK)]
        for resource, selector in looks:
            try:
                async for page in self._client.pages(
                    resource.collection_path(), selector=selector, accept=METADATA_LIST
                ):
                    for item in page.get("items") or ():
                        ours = is_owned(item) if selector == SELECTOR else bool(find_marks(item)) or has_mark(item)
                        if ours and labels_of(item).get(PART) != AGENT_PART:
                            metadata = item["metadata"]
                            ref = Ref(
                                resource.api_version,
                                resource.kind,
                                str(metadata.get("namespace") or ""),
                                metadata["name"],
                            )
                            found[ref] = (resource, item)
            except (errors.Denied, errors.NotFound, errors.MethodNotAllowed):
                # What we may not even list we can't have made; a kind that just went took its objects along.
                continue
        for key in [key for key in problems if key != "api server" and key not in {str(ref) for ref in found}]:
            del problems[key]
        return found

    async def _delete(self, found: dict[Ref, tuple[ApiResource, Document]], problems: dict[str, str]) -> None:
        for ref in sorted(found, key=lambda r: (_ORDER.index(r.kind) if r.kind in _ORDER else len(_ORDER), r)):
            resource, item = found[ref]
            if _is_namespaces(resource):
                await self._release(ref, item, problems)
                continue
            if item["metadata"].get("deletionTimestamp"):
                continue  # under way; if it stays, a stranger's finalizer holds it
            try:
                await self._client.delete(
                    resource.object_path(ref.name, ref.namespace), uid=str(item["metadata"]["uid"])
                )
                problems.pop(str(ref), None)
            except errors.Conflict:
                continue  # made again meanwhile: the next round sees the new one
            except (errors.Denied, errors.Invalid, errors.MethodNotAllowed, errors.BadRequest) as exc:
                problems[str(ref)] = f"{ref}: {exc.message}"

    async def _release(self, ref: Ref, item: Document, problems: dict[str, str]) -> None:
        """A namespace holds people's work: what is ours on it goes, it stays."""
        try:
            if has_mark(item):
                await unlabel(self._client, f"{NAMESPACES}/{ref.name}", unlevel_step(ref.name, item))
            if find_marks(item):
                await release(self._client, ref.name, str(item["metadata"]["uid"]), find_marks(item))
            problems.pop(str(ref), None)
        except (errors.Denied, errors.Invalid, errors.BadRequest) as exc:
            problems[str(ref)] = f"{ref} keeps the labels of its project: {exc.message}"

    async def _report(self, left: list[str]) -> None:
        """Until the hub has taken it, or for so long that it plainly will not: then nothing is left to be said by anybody."""
        give_up = time.monotonic() + REPORT_BUDGET_S
        pause = 0.5
        while True:
            try:
                report = AppliedReport(detached=True, left=left)
                await self._bus.request(REPORT_APPLIED.agent_subject(self._uid), report, Empty, timeout_s=10)
                return
            except errors.HerdsmanError as exc:
                if time.monotonic() >= give_up:
                    log.error(DETACH_UNREPORTED, error=exc.message)
                    return
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, 10.0)

    async def _remove_itself(self) -> None:
        """The agent's own rights are needed until the end, so its cluster-wide objects are made to follow its namespace.

        Once they are owned by the namespace, the garbage collector removes them when it is gone, after this process is.
        """
        path = f"/api/v1/namespaces/{self._namespace}"
        try:
            namespace = await self._client.get(path)
        except errors.NotFound:
            return
        if labels_of(namespace).get(PART) != AGENT_PART:
            log.warning(
                REMOVAL_FAILED, error=f'namespace "{self._namespace}" was not made for the agent: it is left alone'
            )
            return
        owner = {"apiVersion": "v1", "kind": "Namespace", "name": self._namespace, "uid": namespace["metadata"]["uid"]}
        for kind in ("ClusterRoleBinding", "ClusterRole"):
            resource = await self._discovery.resource("rbac.authorization.k8s.io/v1", kind)
            selector = f"{SELECTOR},{PART}={AGENT_PART}"
            async for page in self._client.pages(resource.collection_path(), selector=selector, accept=METADATA_LIST):
                for item in page.get("items") or ():
                    await self._client.merge(
                        resource.object_path(item["metadata"]["name"]), {"metadata": {"ownerReferences": [owner]}}
                    )
        await self._client.delete(path, uid=str(namespace["metadata"]["uid"]))


def _is_namespaces(resource: ApiResource) -> bool:
    return (resource.api_version, resource.kind) == ("v1", "Namespace")
