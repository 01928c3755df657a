"""Takes the steps of `diff` in the cluster: server-side apply, prune by label. Never raises for one object; says what went wrong.

What the API server refuses for one object is noted for its part and the rest goes on; when the API server itself is gone
the round stops and the caller tries again later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from libs.common import errors
from libs.common.kube.client import KubeClient
from libs.common.kube.discovery import Discovery
from libs.common.kube.objects import Document, Ref, ref_of
from services.agent.diff import Apply, Delete, Step
from services.agent.owned import BINDING_KINDS, FIELD_MANAGER, SELECTOR, find_refusal, is_owned

OBJECT_APPLIED = "object_applied"
OBJECT_DELETED = "object_deleted"
log = structlog.get_logger(__name__)

_FATAL = (errors.Unavailable, errors.Timeout, errors.Unauthenticated)


class NamespaceAbsent(errors.NotFound):
    """The namespace of an object is not in the cluster."""


@dataclass(slots=True)
class Outcome:
    """`failures`: part label → sentences; `writes`: how many objects were written or deleted; `absent`: namespaces that would be needed."""

    failures: dict[str, list[str]] = field(default_factory=dict)
    writes: int = 0
    absent: set[str] = field(default_factory=set)

    def fail(self, part: str, sentence: str) -> None:
        """Note what went wrong, once: many objects can lack the same."""
        known = self.failures.setdefault(part, [])
        if sentence not in known:
            known.append(sentence)


class Applier:
    """Works for one cluster. `observe` then `take`, one round at a time."""

    def __init__(self, client: KubeClient, discovery: Discovery) -> None:
        self._client = client
        self._discovery = discovery

    async def observe_owned(self, kinds: Iterable[tuple[str, str]]) -> dict[Ref, Document]:
        """Everything of these kinds that carries our labels. A kind that the cluster does not have holds nothing."""
        found: dict[Ref, Document] = {}
        for api_version, kind in sorted(set(kinds)):
            try:
                resource = await self._discovery.resource(api_version, kind)
                async for page in self._client.pages(resource.collection_path(), selector=SELECTOR):
                    for item in page.get("items") or ():
                        document = {"apiVersion": api_version, "kind": kind, **item}
                        (document.get("metadata") or {}).pop("managedFields", None)
                        if is_owned(document):
                            found[ref_of(document)] = document
            except errors.NotFound:
                continue
        return found

    async def take(self, steps: Sequence[Step]) -> Outcome:
        """Take the steps in order. Raises Unavailable, Timeout or Unauthenticated when the API server can't be worked with."""
        outcome = Outcome()
        for step in steps:
            if isinstance(step, Apply) and step.ref.namespace in outcome.absent:
                outcome.fail(step.part, _say_absent(step.ref.namespace))
                continue
            try:
                if isinstance(step, Delete):
                    await self._delete(step)
                else:
                    await self._apply(step)
                outcome.writes += 1
            except _FATAL:
                raise
            except NamespaceAbsent as exc:
                outcome.absent.add(step.ref.namespace)
                outcome.fail(step.part, exc.message)
            except errors.HerdsmanError as exc:
                outcome.fail(step.part, exc.message)
        return outcome

    async def _delete(self, step: Delete) -> None:
        await self._client.delete(await self._discovery.path(step.ref), uid=step.uid)
        log.info(OBJECT_DELETED, object=str(step.ref), part=step.part)

    async def _apply(self, step: Apply) -> None:
        refusal = find_refusal(step.document)
        if refusal:
            raise errors.Denied(f"the agent refuses what the hub asked for: {refusal}")
        path = await self._discovery.path(step.ref)
        try:
            await self._client.apply(path, step.document, manager=FIELD_MANAGER)
        except errors.NotFound as exc:
            # The kind is known and the object need not exist, so it is its namespace that does not.
            if step.ref.namespace and exc.kind in ("", "namespaces"):
                raise NamespaceAbsent(_say_absent(step.ref.namespace)) from exc
            raise
        except errors.Invalid:
            if not await self._remove_stranger(step, path):
                raise
            await self._client.apply(path, step.document, manager=FIELD_MANAGER)
        log.info(OBJECT_APPLIED, object=str(step.ref), part=step.part)

    async def _remove_stranger(self, step: Apply, path: str) -> bool:
        """A binding under our name that lost our labels and names another role: it can't be changed, only replaced."""
        if step.ref.kind not in BINDING_KINDS:
            return False
        found = await self._client.get(path)
        if found.get("roleRef") == step.document.get("roleRef"):
            return False
        await self._client.delete(path, uid=str(found["metadata"]["uid"]))
        return True


def _say_absent(namespace: str) -> str:
    return f'namespace "{namespace}" is not in the cluster: what belongs into it is applied as soon as it is made'
