"""Typed objects over a store: the view of one kind in an informer, and the owner's read-change-write loop.

Services read with `Objects` and owners write status and private parts with `modify`; writes of people come through
`libs.common.apiserver.writer`. Bytes and models are told apart in `libs.common.resources.codec` alone.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

from libs.common import errors
from libs.common.resources import codec
from libs.common.resources.meta import ManagedFieldsEntry, Resource
from libs.common.resources.registry import BY_MODEL
from libs.common.store.base import Entry, Store
from libs.common.store.informer import Change, Informer

R = TypeVar("R", bound=Resource)
Now = Callable[[], datetime]

MODIFY_ATTEMPTS = 10
HUB_MANAGER = "herdsman"


class Objects(Generic[R]):
    """All objects of one kind in an informer, decoded when asked for and remembered until they change.

    The objects are shared: whoever wants to change one writes it (`modify`) or copies it (`model_copy(deep=True)`).
    """

    def __init__(self, informer: Informer, model: type[R]) -> None:
        self.informer = informer
        self._model = model
        self._type = BY_MODEL[model]
        self._prefix = self._type.key("")
        self._decoded: dict[str, tuple[Entry, R]] = {}
        self._end = informer.subscribe(self._forget, replay=False)

    def get(self, name: str) -> R | None:
        """The object as the copy has it, or None. Raises Internal when its bytes cannot be read."""
        entry = self.informer.get(self._type.key(name))
        return None if entry is None else self._decode(entry)

    def all(self) -> list[R]:
        """All objects, in no order. Raises Internal when one cannot be read: a list that silently lacks one is worse."""
        return [self._decode(e) for key, e in self.informer.entries.items() if key.startswith(self._prefix)]

    def names(self) -> list[str]:
        """Names of all objects, without decoding any, in no order."""
        start = len(self._prefix)
        return [key[start:] for key in self.informer.entries if key.startswith(self._prefix)]

    def close(self) -> None:
        """Stop following the informer."""
        self._end()

    def _decode(self, entry: Entry) -> R:
        remembered = self._decoded.get(entry.key)
        if remembered is not None and remembered[0] is entry:
            return remembered[1]
        decoded = codec.decode(self._model, entry.value, entry.revision)
        self._decoded[entry.key] = (entry, decoded)
        return decoded

    def _forget(self, change: Change) -> None:
        self._decoded.pop(change.key, None)


def encode_unique(resource: Resource) -> bytes:
    """Bytes to store, with a fresh operation id: what lets the store recognise its own write after a lost answer."""
    return codec.encode(resource, secrets.token_hex(12))


def encode_last(resource: Resource) -> bytes:
    """Bytes for the tombstone of a deleted object: as `encode_unique`, without the private part."""
    return codec.encode(resource, secrets.token_hex(12), deleted=True)


async def read(store: Store, model: type[R], name: str) -> R:
    """The object from the store itself, never stale. Raises NotFound in words for people."""
    resource_type = BY_MODEL[model]
    try:
        entry = await store.get(resource_type.key(name))
    except errors.NotFound as exc:
        raise errors.not_found(f"{resource_type.plural}.management.herdsman.dev", name) from exc
    return codec.decode(model, entry.value, entry.revision)


async def modify(store: Store, model: type[R], name: str, mutate: Callable[[R], bool], *, now: Now) -> R:
    """Read, change and write one object of this owner until nobody came between. Returns the object as stored.

    `mutate` changes status, `private`, labels, annotations or finalizers of what it is given and returns whether there is
    anything to write; it may run several times. Taking the last finalizer of an object that is being deleted deletes it.
    A change of the spec raises the generation. Raises NotFound; Conflict after `MODIFY_ATTEMPTS`; the store's errors.
    """
    key = BY_MODEL[model].key(name)
    for attempt in range(MODIFY_ATTEMPTS):
        current = await read(store, model, name)
        revision = int(current.metadata.resource_version or 0)
        before = current.model_copy(deep=True)
        if not mutate(current):
            return before
        try:
            if current.deleting and not current.metadata.finalizers:
                revision = await store.delete(key, encode_last(current), revision)
            else:
                _note_write(before, current, now())
                revision = await store.update(key, encode_unique(current), revision)
        except errors.Conflict:
            await asyncio.sleep(random.uniform(0, 0.005 * 2**attempt))
            continue
        current.metadata.resource_version = str(revision)
        return current
    raise errors.Conflict(
        f'{model.KIND} "{name}" changes faster than it can be written: try again', name=name, kind=model.KIND
    )


def _note_write(before: R, after: R, moment: datetime) -> None:
    """Generation for a changed spec; in managedFields, that the hub wrote the status and when."""
    if getattr(before, "spec", None) != getattr(after, "spec", None):
        after.metadata.generation = (before.metadata.generation or 0) + 1
    if getattr(before, "status", None) == getattr(after, "status", None):
        return
    others = [
        entry
        for entry in after.metadata.managed_fields or []
        if (entry.manager, entry.subresource) != (HUB_MANAGER, "status")
    ]
    mine = ManagedFieldsEntry(
        manager=HUB_MANAGER, operation="Update", time=moment, fields_v1={"f:status": {}}, subresource="status"
    )
    after.metadata.managed_fields = [*others, mine]
