"""Takes the steps of `diff` and `claims` in the cluster. Never raises for one object; says what went wrong.

What the API server refuses for one object is noted for its part and the rest goes on; when the API server itself is gone
the round stops and the caller tries again later. An object of somebody else that has the name of one of ours is left alone, and so is
what would depend on it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from libs.common import errors
from libs.common.kube.client import METADATA, METADATA_LIST, KubeClient
from libs.common.kube.discovery import Discovery
from libs.common.kube.objects import Document, Ref, ref_of
from services.agent.claims import PROJECT, PROJECT_UID, Adorn, Claim, Make, Release, say_absent
from services.agent.diff import Apply, Delete, Step
from services.agent.owned import (
    APPLIED,
    BINDING_KINDS,
    FIELD_MANAGER,
    PART,
    ROLE_KINDS,
    SELECTOR,
    find_refusal,
    is_owned,
    without_managers,
)
from services.agent.pod_security import Level, Unlevel, label, unlabel

OBJECT_APPLIED = "object_applied"
OBJECT_DELETED = "object_deleted"
NAMESPACE_MADE = "namespace_made"
NAMESPACE_ADORNED = "namespace_adorned"
NAMESPACE_RELEASED = "namespace_released"
NAMESPACE_LEVELLED = "namespace_levelled"
NAMESPACE_UNLEVELLED = "namespace_unlevelled"
NAMESPACES = "/api/v1/namespaces"
OLD_RIGHTS = "the agent lacks a right in this cluster: apply the import manifest of this version again"
log = structlog.get_logger(__name__)

_WRITES_REMEMBERED = 2000
_FATAL = (errors.Unavailable, errors.Timeout, errors.Unauthenticated)


class NamespaceAbsent(errors.NotFound):
    """The namespace of an object is not in the cluster."""


class Stranger(errors.AlreadyExists):
    """The object under this name is somebody else's."""


@dataclass(slots=True)
class Observed:
    """What carries our labels. `changers`: who changed an object last, where that was not us; `refused`: kinds that may not be listed."""

    objects: dict[Ref, Document] = field(default_factory=dict)
    changers: dict[Ref, str] = field(default_factory=dict)
    refused: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class Outcome:
    """What came of the steps. Keys are label values of parts.

    `blocked`: namespaces in which nothing is applied → why; `absent`: those of them that are waited for; `strangers`: names of
    ClusterRoles that are somebody else's, so that nothing may bind them.
    """

    failures: dict[str, list[str]] = field(default_factory=dict)
    done: dict[str, list[Step]] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    changers: dict[Ref, str] = field(default_factory=dict)

    @property
    def writes(self) -> int:
        return sum(len(steps) for steps in self.done.values())

    def fail(self, part: str, sentence: str) -> None:
        """Note what went wrong, once: many objects can lack the same."""
        known = self.failures.setdefault(part, [])
        if sentence not in known:
            known.append(sentence)


class Applier:
    """Works for one cluster. `observe_…` then `take`, one round at a time."""

    def __init__(self, client: KubeClient, discovery: Discovery) -> None:
        self._client = client
        self._discovery = discovery
        self._written: OrderedDict[Ref, str] = OrderedDict()
        """Object → resourceVersion of our last write, "" = deleted: by these a watch tells our writes from others'."""

    def is_own_write(self, ref: Ref, version: str) -> bool:
        """Whether this version of an object ("" = that it is gone) is our doing. No means only that it may not be."""
        return self._written.get(ref) == version

    def _note_write(self, ref: Ref, version: str) -> None:
        self._written[ref] = version
        self._written.move_to_end(ref)
        while len(self._written) > _WRITES_REMEMBERED:
            self._written.popitem(last=False)

    async def observe_owned(self, kinds: Iterable[tuple[str, str]], parts: Iterable[str] = ()) -> Observed:
        """Everything of these kinds that carries our labels (those of `parts`, if any). A kind that the cluster does not have holds nothing."""
        named = ",".join(sorted(parts))
        selector = f"{SELECTOR},{PART} in ({named})" if named else SELECTOR
        observed = Observed()
        looks = (self._observe_kind(version, kind, selector, observed) for version, kind in sorted(set(kinds)))
        for answer in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
        return observed

    async def _observe_kind(self, api_version: str, kind: str, selector: str, observed: Observed) -> None:
        try:
            resource = await self._discovery.resource(api_version, kind)
            async for page in self._client.pages(resource.collection_path(), selector=selector):
                for item in page.get("items") or ():
                    document = {"apiVersion": api_version, "kind": kind, **item}
                    changer = find_changer(document)
                    if is_owned(document):
                        observed.objects[ref_of(document)] = without_managers(document)
                        if changer:
                            observed.changers[ref_of(document)] = changer
        except errors.NotFound:
            return
        except errors.Denied:
            observed.refused.add((api_version, kind))

    async def observe_namespaces(self, names: Iterable[str] | None) -> dict[str, Document]:
        """Metadata of these namespaces (None: of all), and of all that a project's label is on."""
        found: dict[str, Document] = {}
        async for page in self._client.pages(
            NAMESPACES, selector="" if names is None else PROJECT, accept=METADATA_LIST
        ):
            for item in page.get("items") or ():
                found[str(item["metadata"]["name"])] = item
        for name in names or ():
            if name not in found:
                try:
                    found[name] = await self._client.get(f"{NAMESPACES}/{name}", accept=METADATA)
                except errors.NotFound:
                    continue
        return found

    async def take(self, steps: Sequence[Step], outcome: Outcome | None = None) -> Outcome:
        """Take the steps in order. Raises Unavailable, Timeout or Unauthenticated when the API server can't be worked with."""
        outcome = outcome or Outcome()
        for step in steps:
            part = step.claim.part if isinstance(step, Make | Adorn) else step.part
            try:
                await self._take(step, outcome)
                outcome.done.setdefault(part, []).append(step)
            except _FATAL:
                raise
            except errors.Denied as exc:
                outcome.fail(part, f"{OLD_RIGHTS} ({exc.message})" if "cannot" in exc.message else exc.message)
            except errors.HerdsmanError as exc:
                outcome.fail(part, exc.message)
        return outcome

    async def _take(self, step: Step, outcome: Outcome) -> None:
        match step:
            case Delete():
                await self._client.delete(await self._discovery.path(step.ref), uid=step.uid)
                self._note_write(step.ref, "")
                log.info(OBJECT_DELETED, object=str(step.ref), part=step.part)
            case Apply():
                await self._apply(step, outcome)
            case Release():
                await self._release(step)
            case Level():
                await label(self._client, f"{NAMESPACES}/{step.namespace}", step)
                log.info(NAMESPACE_LEVELLED, namespace=step.namespace, part=step.part)
            case Unlevel():
                await unlabel(self._client, f"{NAMESPACES}/{step.namespace}", step)
                log.info(NAMESPACE_UNLEVELLED, namespace=step.namespace)
            case Make():
                await self._make(step.claim, outcome)
            case Adorn():
                await self._adorn(step.claim, step.uid)

    # ── objects ──

    async def _apply(self, step: Apply, outcome: Outcome) -> None:
        refusal = find_refusal(step.document)
        if refusal:
            raise errors.Denied(f"the agent refuses what the hub asked for: {refusal}")
        blocked = outcome.blocked.get(step.ref.namespace)
        if blocked is not None:
            raise errors.NotFound(blocked)
        role = str((step.document.get("roleRef") or {}).get("name", ""))
        if step.ref.kind in BINDING_KINDS and role in outcome.strangers:
            raise Stranger(f'{step.ref} is not applied: its ClusterRole "{role}" belongs to somebody else')
        path = await self._discovery.path(step.ref)
        try:
            force = True if not step.is_new else await self._is_ours(step, path, outcome)
            made = await self._client.apply(path, step.document, manager=FIELD_MANAGER, force=force)
            self._note_write(step.ref, str(made["metadata"]["resourceVersion"]))
        except Stranger:
            if step.ref.kind in ROLE_KINDS:
                outcome.strangers.add(step.ref.name)
            raise
        except errors.NotFound as exc:
            # The kind is known and the object need not exist, so it is its namespace that does not.
            if not step.ref.namespace:
                raise
            outcome.absent.add(step.ref.namespace)
            outcome.blocked[step.ref.namespace] = say_absent(step.ref.namespace)
            raise NamespaceAbsent(say_absent(step.ref.namespace)) from exc
        if step.ref.kind in ROLE_KINDS:
            outcome.strangers.discard(step.ref.name)
        log.info(OBJECT_APPLIED, object=str(step.ref), part=step.part)

    async def _is_ours(self, step: Apply, path: str, outcome: Outcome) -> bool:
        """Whether there is something under the name that is ours without its labels. Raises Stranger when it is somebody else's."""
        try:
            found = await self._client.get(path)
        except errors.NotFound:
            return False
        if is_owned(found) or _was_applied_by_us(found, step.document):
            outcome.changers[step.ref] = find_changer(found)
            return True
        raise Stranger(f"{step.ref} was in the cluster before and belongs to somebody else: it is left alone")

    # ── namespaces ──

    async def _make(self, claim: Claim, outcome: Outcome) -> None:
        """Only what tells that it is ours is in the first write: what is kept on it by `apply` can be taken from it again."""
        metadata = claim.document["metadata"]
        marked = {
            "name": claim.namespace,
            "labels": {PROJECT: metadata["labels"][PROJECT]},
            "annotations": {PROJECT_UID: claim.uid},
        }
        try:
            made = await self._client.create(
                NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": marked}, {"fieldManager": FIELD_MANAGER}
            )  # fmt: skip
        except errors.HerdsmanError as exc:
            outcome.blocked[claim.namespace] = f'namespace "{claim.namespace}" could not be made: {exc.message}'
            outcome.absent.add(claim.namespace)
            raise
        log.info(NAMESPACE_MADE, namespace=claim.namespace, part=claim.part)
        await self._adorn(claim, str(made["metadata"]["uid"]))

    async def _adorn(self, claim: Claim, uid: str) -> None:
        """With the uid that was seen: a namespace that was made meanwhile is another one, and none is made by this."""
        document = {**claim.document, "metadata": {**claim.document["metadata"], "uid": uid}}
        await self._client.apply(f"{NAMESPACES}/{claim.namespace}", document, manager=FIELD_MANAGER)
        log.info(NAMESPACE_ADORNED, namespace=claim.namespace, part=claim.part)

    async def _release(self, step: Release) -> None:
        await release(self._client, step.namespace, step.uid, step.marks)
        log.info(NAMESPACE_RELEASED, namespace=step.namespace, part=step.part)


async def release(client: KubeClient, namespace: str, uid: str, marks: Iterable[str]) -> None:
    """Take from a namespace what is ours on it: the fields that we applied, and our marks, whoever set them.

    One that is gone is released, and one that was made anew under the name was never ours.
    """
    path = f"{NAMESPACES}/{namespace}"
    nothing = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "uid": uid}}
    unmarked = {
        "uid": uid,
        "labels": {key: None for key in marks if key not in (PROJECT_UID, APPLIED)},
        "annotations": {PROJECT_UID: None, APPLIED: None},
    }
    try:
        await client.apply(path, nothing, manager=FIELD_MANAGER)
        await client.merge(path, {"metadata": unmarked})
    except (errors.NotFound, errors.Conflict):
        return
    except errors.Invalid as exc:
        if not any(cause.field == "metadata.uid" for cause in exc.causes):
            raise


def find_changer(document: Mapping[str, Any]) -> str:
    """Who changed an object last and when, by its managed fields; empty when nobody but us did."""
    fields = (document.get("metadata") or {}).get("managedFields") or ()
    others = [f for f in fields if f.get("manager") != FIELD_MANAGER and not f.get("subresource")]
    if not others:
        return ""
    last = max(others, key=lambda f: str(f.get("time") or ""))
    return f"{str(last.get('manager'))[:64]} at {last.get('time')}"


def _was_applied_by_us(found: Mapping[str, Any], desired: Document) -> bool:
    """An object of ours that somebody took the labels from. Who makes a binding anew to another role has made one of their own."""
    fields = (found.get("metadata") or {}).get("managedFields") or ()
    applied = any(f.get("manager") == FIELD_MANAGER and f.get("operation") == "Apply" for f in fields)
    return applied and found.get("roleRef") == desired.get("roleRef")
