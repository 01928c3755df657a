"""Which project a namespace is in, as one key a namespace: what makes "in at most one project" hold over replicas.

A claim is written in one batch with the project that takes the namespace, compared with what was read: of two who take one namespace
at the same moment, one comes second and sees the other. A claim counts only while its project has the namespace, so one that was left
behind bars nobody.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgpack

from libs.common import errors
from libs.common.resources.projects import Project, ProjectNamespace
from libs.common.store.base import Entry, Put, Store
from libs.common.store.objects import Objects, read
from services.project.rules import MAX_CHANGES, Key, find_added, find_removed, key_of

CLAIMS = "nsof"


def claim_key(key: Key) -> str:
    return f"{CLAIMS}.{key[0]}.{key[1]}"


def decode_claim(entry: Entry) -> tuple[str, str]:
    """Name and uid of the project that took the namespace last."""
    project, uid, _operation = msgpack.unpackb(entry.value)
    return str(project), str(uid)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who has a namespace, as its key says; `entry` None = nobody ever did."""

    project: str
    uid: str
    entry: Entry | None


class Claims:
    """`projects` may be behind: it only says where to look."""

    def __init__(self, store: Store, projects: Objects[Project]) -> None:
        self._store = store
        self._projects = projects

    async def plan(self, old: Project | None, new: Project | None) -> list[Put]:
        """The claims to write together with the change from `old` to `new`. Raises Conflict for one that another project has."""
        added = find_added(old, new) if new is not None else []
        if old is None:
            removed = []
        else:
            removed = find_removed(old, new) if new is not None else old.spec.namespaces[:MAX_CHANGES]
        puts = []
        for namespace in added:
            assert new is not None
            puts.append(await self._take(key_of(namespace), new))
        for namespace in removed:
            assert old is not None
            claim = await self._read(key_of(namespace))
            if claim.entry is not None and claim.uid == old.uid:
                puts.append(Put(claim.entry.key, claim.entry.value, claim.entry.revision, deleted=True))
        return puts

    async def move(self, key: Key, source: Project, target: Project) -> Put:
        """The claim to write together with both projects."""
        claim = await self._read(key)
        if claim.uid not in (source.uid, target.uid) and await self._holder(claim, key) is not None:
            raise _taken(key)
        return _put(key, target, claim.entry)

    async def find_holders(self, namespaces: Iterable[ProjectNamespace], besides: str) -> dict[Key, str]:
        """The other projects that have these namespaces, as the store itself says."""
        wanted = {key_of(n) for n in namespaces}
        found: dict[Key, str] = {}
        for copy in self._projects.all() if wanted else ():
            if copy.name == besides or not any(key_of(n) in wanted for n in copy.spec.namespaces):
                continue
            try:
                project = await read(self._store, Project, copy.name)
            except errors.NotFound:
                continue
            found |= {key_of(n): project.name for n in project.spec.namespaces if key_of(n) in wanted}
        return found

    async def holder_of(self, key: Key) -> Project | None:
        """The project that has this namespace, from the store itself."""
        held = await self._holder(await self._read(key), key)
        if held is not None:
            return held
        for copy in self._projects.all():
            if any(key_of(n) == key for n in copy.spec.namespaces):
                held = await self._read_holding(copy.name, key)
                if held is not None:
                    return held
        return None

    async def adopt(self, project: Project, is_known: Callable[[str], bool]) -> int:
        """Claim what a project has since before there were claims; `is_known`: whether a key is there. Returns how many were made."""
        made = 0
        for namespace in project.spec.namespaces:
            key = claim_key(key_of(namespace))
            if is_known(key):
                continue
            try:
                await self._store.create(key, _value(project))
                made += 1
            except errors.AlreadyExists:
                continue
        return made

    async def drop(self, project: Project, keys: Iterable[Key]) -> None:
        """Tidy: delete the project's claims of namespaces that it has no longer. Somebody else's claim meanwhile stays."""
        for key in keys:
            claim = await self._read(key)
            if claim.entry is None or claim.uid != project.uid:
                continue
            with contextlib.suppress(errors.Conflict):
                await self._store.delete(claim.entry.key, claim.entry.value, claim.entry.revision)

    async def _take(self, key: Key, project: Project) -> Put:
        claim = await self._read(key)
        if claim.uid != project.uid and await self._holder(claim, key) is not None:
            raise _taken(key)
        return _put(key, project, claim.entry)

    async def _read(self, key: Key) -> Claim:
        try:
            entry = await self._store.get(claim_key(key))
        except errors.NotFound:
            return Claim("", "", None)
        project, uid = decode_claim(entry)
        return Claim(project, uid, entry)

    async def _holder(self, claim: Claim, key: Key) -> Project | None:
        """The project that a claim names, if it is still that project and has the namespace."""
        project = await self._read_holding(claim.project, key) if claim.entry is not None else None
        return project if project is not None and project.uid == claim.uid else None

    async def _read_holding(self, name: str, key: Key) -> Project | None:
        try:
            project = await read(self._store, Project, name)
        except errors.NotFound:
            return None
        return project if any(key_of(n) == key for n in project.spec.namespaces) else None


def _put(key: Key, project: Project, before: Entry | None) -> Put:
    return Put(claim_key(key), _value(project), before.revision if before is not None else 0)


def _value(project: Project) -> bytes:
    value: bytes = msgpack.packb((project.name, project.uid, secrets.token_hex(8)))
    return value


def _taken(key: Key) -> errors.Conflict:
    return errors.Conflict(f"namespace {key[0]}/{key[1]} came into another project at this moment: look again")
