"""Who makes a cluster or a project gets the roles in it that are meant for its maker: once for each object, and never again.

Level-based: the writer notes the maker on the object (`creator.keep`), and this makes the bindings when the object is there. A marker
under the object's uid is written with them in one batch, so what somebody revokes stays revoked. Keys are `<plural>/<name>`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import msgpack

from libs.common import errors
from libs.common.access.live import HasGrants
from libs.common.apiserver.creator import creator_of
from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources import codec
from libs.common.resources.access import BindingScope, RoleTemplate, RoleTemplateBinding, RoleTemplateBindingSpec
from libs.common.resources.clusters import Cluster
from libs.common.resources.meta import ObjectMeta, format_time
from libs.common.resources.projects import Project
from libs.common.resources.registry import BY_MODEL, BY_PLURAL
from libs.common.store.base import Put, Store
from libs.common.store.objects import Objects, encode_unique

if TYPE_CHECKING:
    from libs.common.store.informer import Change

MARKER = "creator"


class CreatorDefaults:
    def __init__(
        self, store: Store, stores: Callable[[str], Store], templates: Objects[RoleTemplate], clusters: Objects[Cluster],
        projects: Objects[Project], grants: HasGrants, now: Callable[[], datetime],
    ) -> None:  # fmt: skip
        self._store = store
        self._stores = stores
        self._templates = templates
        self._clusters = clusters
        self._projects = projects
        self._grants = grants
        self._now = now

    async def reconcile(self, key: str) -> Outcome:
        """Bind the maker of the object of this key, unless that was done, or the object tells of none."""
        plural, _, name = key.partition("/")
        made: Cluster | Project | None = (
            self._clusters.get(name) if plural == "clusters" else self._projects.get(name)
        )  # fmt: skip
        maker = "" if made is None or made.deleting else creator_of(made)
        if made is None or not maker or await self._is_marked(made.uid):
            return DONE
        moment = self._now()
        user = next((name for name, fact in self._grants.current.users.items() if fact.principal_id == maker), None)
        bindings = [_binding(made, role, maker, user, moment) for role in self._roles_for(made)]
        writes = [Put(BY_MODEL[RoleTemplateBinding].key(b.name), encode_unique(b), 0) for b in bindings]
        try:
            await self._store.batch([Put(f"{MARKER}.{made.uid}", _marker(key, moment), 0), *writes])
        except errors.Conflict:
            if not await self._is_marked(made.uid):
                raise
            return DONE  # another replica was first
        log.get("authz").info(
            "creator_bound", kind=made.kind, object=name, principal=maker, roles=[b.spec.role for b in bindings]
        )
        return DONE

    async def forget(self, key: str) -> Outcome:
        """Nothing is noted any more of an object that is gone for good. Keys are `<plural>/<name>/<uid>`."""
        plural, name, uid = key.split("/")
        kind = BY_PLURAL[plural]
        try:
            stored = await self._stores(kind.bucket).get(kind.key(name))
        except errors.NotFound:
            pass
        else:
            if codec.decode_document(stored.value, stored.revision)["metadata"]["uid"] == uid:
                return DONE  # a copy that had lost it for a moment
        try:
            entry = await self._store.get(f"{MARKER}.{uid}")
        except errors.NotFound:
            return DONE
        await self._store.delete(entry.key, entry.value, entry.revision)
        return DONE

    def _roles_for(self, made: Cluster | Project) -> Iterable[RoleTemplate]:
        """A project that began with namespaces which were there before gives nothing by itself: its maker may not be let into those."""
        if isinstance(made, Project) and any(not n.create for n in made.spec.namespaces):
            return ()
        scope = "cluster" if isinstance(made, Cluster) else "project"
        meant = (t for t in self._templates.all() if t.spec.creator_default and t.spec.scope == scope)
        return sorted((t for t in meant if not t.spec.locked and not t.deleting), key=lambda t: t.name)

    async def _is_marked(self, uid: str) -> bool:
        try:
            await self._store.get(f"{MARKER}.{uid}")
        except errors.NotFound:
            return False
        return True


def keys_of_made(change: Change) -> Iterable[str]:
    """Of what has come; a change of what is there makes nobody its maker."""
    return (change.key.replace(".", "/", 1),) if change.after is not None and change.before is None else ()


def keys_of_gone(change: Change) -> Iterable[str]:
    if change.after is not None:
        return ()
    metadata = codec.decode_document(change.last.value, change.last.revision)["metadata"]
    return (f"{change.key.replace('.', '/', 1)}/{metadata['uid']}",)


def _binding(
    made: Cluster | Project, role: RoleTemplate, maker: str, user: str | None, moment: datetime
) -> RoleTemplateBinding:
    scope = (
        BindingScope(cluster=made.name, cluster_uid=made.uid)
        if isinstance(made, Cluster)
        else BindingScope(project=made.name, project_uid=made.uid)
    )
    return RoleTemplateBinding(
        metadata=ObjectMeta(name=f"creator-{made.uid}-{role.name}", uid=str(uuid4()), creation_timestamp=moment, generation=1),
        spec=RoleTemplateBindingSpec(
            principal=maker, user=user, role=role.name, scope=scope, reason=f"made the {made.kind.lower()}"
        ),
    )  # fmt: skip


def _marker(key: str, moment: datetime) -> bytes:
    """In the stored form of objects, with an operation id that differs between replicas."""
    packed: bytes = msgpack.packb({"v": 1, "op": uuid4().hex, "object": {"of": key, "at": format_time(moment)}})
    return packed
