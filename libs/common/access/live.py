"""The grants, kept current from informers: what services hold and ask through `.current`.

A change costs what it touches: one binding recomputes one principal, heartbeats and sign-ins nothing. `.current` is never behind
the informers nor behind the clock, so a grant or a revocation counts on the first call after it arrived. Start at `start_live_grants`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from libs.common import errors
from libs.common.access.bindings import BindingIndex, Expiries, fact_of
from libs.common.access.grants import Grants
from libs.common.access.held import NOTHING, Held, held_by
from libs.common.access.local_groups import LocalGroups
from libs.common.access.places import PlaceIndex
from libs.common.access.roles import EffectiveRole, resolve_roles
from libs.common.access.snapshot import ProjectFact, UserFact, project_fact, user_fact
from libs.common.observe import log as observe
from libs.common.resources import codec
from libs.common.resources.access import RoleTemplate, RoleTemplateBinding
from libs.common.resources.identity import Group, User
from libs.common.resources.projects import Project
from libs.common.resources.registry import BY_PLURAL
from libs.common.store.base import Entry

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer

log = observe.get("access")
T = TypeVar("T")
SOURCES = ("roletemplates", "roletemplatebindings", "clusters", "users", "projects", "groups")
MAX_WAIT_S = 30.0
"""The expiry timer looks at the wall clock at least this often, in case that was set."""


class HasGrants(Protocol):
    """What whoever decides needs: the snapshot of now."""

    @property
    def current(self) -> Grants: ...


class GrantsHost(Protocol):
    """The part of `libs.common.runtime.Host` that is needed here."""

    def now(self) -> datetime: ...

    async def informer(self, bucket: str, prefix: str = "") -> Informer: ...

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...

    def ready_when(self, name: str, check: Callable[[], bool]) -> None: ...


async def start_live_grants(host: GrantsHost) -> LiveGrants:
    """The process's grants, following the kinds they are made of."""
    informers = {plural: await host.informer(BY_PLURAL[plural].bucket, plural) for plural in SOURCES}
    live = LiveGrants(informers, host.now)
    host.spawn("grants expiry", live.run())
    host.ready_when("grants", lambda: live.synced)
    return live


class LiveGrants:
    """Follows informers, one for each of `SOURCES` by plural; `projects` and `groups` may be left out where none counts.

    `bindings` are all that there are, whether or not they count. A snapshot shares with the one before it what did not change.
    """

    def __init__(self, informers: Mapping[str, Informer], now: Callable[[], datetime]) -> None:
        self._now = now
        self._informers = dict(informers)
        self._templates: dict[str, RoleTemplate] = {}
        self.bindings = BindingIndex()
        self._expiries = Expiries()
        self._roles: dict[str, EffectiveRole] = {}
        self._held: Facts[Held] = Facts()
        self._clusters: Facts[str] = Facts()
        self._labels: Facts[Mapping[str, str]] = Facts()
        self._users: Facts[UserFact] = Facts()
        self._projects: Facts[ProjectFact] = Facts()
        self._places = PlaceIndex()
        self._groups = LocalGroups()
        self._roles_changed = False
        self._changed = False
        self._changed_principals: set[str] = set()
        self._grants = Grants()
        self._wake = asyncio.Event()
        self._subscribers: list[Callable[[Grants], None]] = []
        handlers: dict[str, Callable[[str, Entry | None], None]] = {
            "roletemplates": self._on_role, "roletemplatebindings": self._on_binding, "clusters": self._on_cluster,
            "users": self._on_user, "projects": self._on_project,
            "groups": self._on_group,
        }  # fmt: skip
        self._stop = [
            informer.subscribe(_follow(plural, handlers[plural]), replay=True) for plural, informer in informers.items()
        ]

    @property
    def synced(self) -> bool:
        """Whether every informer has its first complete listing; before that, some grants may be missing, none is too many."""
        return all(informer.synced.is_set() for informer in self._informers.values())

    @property
    def current(self) -> Grants:
        """The snapshot of this moment."""
        expiry = self._grants.next_expiry
        if self._changed or (expiry is not None and self._now() >= expiry):
            self._compile(self._now())
        return self._grants

    def subscribe(self, callback: Callable[[Grants], None]) -> Callable[[], None]:
        """Call `callback` with each new snapshot, soon after the change; several changes may be one call. Returns the way out."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    async def run(self) -> None:
        """Compile and tell the subscribers when something changed or expired, for ever."""
        told: Grants | None = None
        while True:
            self._wake.clear()
            grants = self.current
            if grants is not told:
                told = grants
                self._tell(grants)
            wait_s = MAX_WAIT_S
            if grants.next_expiry is not None:
                wait_s = min(MAX_WAIT_S, max(0.0, (grants.next_expiry - self._now()).total_seconds()))
            try:
                async with asyncio.timeout(wait_s):  # not wait_for: before 3.12 it can swallow a cancellation
                    await self._wake.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        """Stop following the informers."""
        for stop in self._stop:
            stop()

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_role(self, name: str, entry: Entry | None) -> None:
        before = self._templates.pop(name, None)
        if entry is not None:
            self._templates[name] = codec.decode(RoleTemplate, entry.value, entry.revision)
        after = self._templates.get(name)
        if before is None or after is None or before.spec != after.spec or before.deleting != after.deleting:
            self._roles_changed = True
            self._mark()

    def _on_binding(self, name: str, entry: Entry | None) -> None:
        fact = None if entry is None else fact_of(codec.decode(RoleTemplateBinding, entry.value, entry.revision))
        if fact is not None and fact == self.bindings.get(name):
            return  # only words about it changed, such as its status
        self._changed_principals.update(self.bindings.put(name, fact))
        self._expiries.put(name, None)
        self._mark()

    def _on_cluster(self, name: str, entry: Entry | None) -> None:
        metadata = {} if entry is None else codec.decode_document(entry.value, entry.revision)["metadata"]
        self._mark_if(self._labels.put(name, metadata.get("labels") or None))
        self._mark_if(self._clusters.put(name, str(metadata["uid"]) if metadata else None))

    def _on_user(self, name: str, entry: Entry | None) -> None:
        fact = None if entry is None else user_fact(codec.decode(User, entry.value, entry.revision))
        self._mark_if(self._users.put(name, fact))

    def _on_project(self, name: str, entry: Entry | None) -> None:
        project = None if entry is None else codec.decode(Project, entry.value, entry.revision)
        fact = None if project is None or project.deleting else project_fact(project)
        if self._projects.put(name, fact):
            self._places.put_project(name, frozenset() if fact is None else fact.clusters)
            self._mark()

    def _on_group(self, name: str, entry: Entry | None) -> None:
        before = self._groups.ids
        changed = self._groups.put(name, None if entry is None else codec.decode(Group, entry.value, entry.revision))
        if changed or self._groups.ids != before:
            self._mark()

    def _mark_if(self, changed: bool) -> None:
        if changed:
            self._mark()

    def _mark(self) -> None:
        self._changed = True
        self._wake.set()

    # ── compiling ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _compile(self, now: datetime) -> None:
        for name in self._expiries.take(now):
            if (stopped := self.bindings.get(name)) is not None:
                self._changed_principals.add(stopped.principal)
        for principal in self._changed_principals:
            facts = self.bindings.of_principal(principal)
            for fact in facts:
                if fact.not_after is not None and fact.is_counting(now):
                    self._expiries.put(fact.name, fact.not_after)
            before, held = self._held.get(principal) or NOTHING, held_by(facts, now)
            if self._held.put(principal, None if held == NOTHING else held):
                self._places.put(principal, before, held)
        if self._roles_changed:
            self._roles = resolve_roles(self._templates.values())
        self._changed_principals.clear()
        self._roles_changed = self._changed = False
        self._grants = Grants(
            roles=self._roles, held=self._held.copy(), clusters=self._clusters.copy(),
            labels=self._labels.copy(), users=self._users.copy(),
            projects=self._projects.copy(), places=self._places.view(), local_groups=self._groups.by_uid,
            local_group_ids=self._groups.ids, next_expiry=self._expiries.next(),
        )  # fmt: skip
        self._wake.set()

    def _tell(self, grants: Grants) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback(grants)
            except Exception as exc:  # one listener's fault must not stop the others, nor the expiry timer
                log.error("grants_listener_failed", error=str(exc), exc_info=exc)


class Facts(Generic[T]):
    """Facts by name, and the copy of them for snapshots: the same one until something changes."""

    def __init__(self) -> None:
        self._facts: dict[str, T] = {}
        self._copy: dict[str, T] | None = {}

    def get(self, name: str) -> T | None:
        return self._facts.get(name)

    def put(self, name: str, fact: T | None) -> bool:
        """The fact as it is now, None = there is none. Returns whether it was another before."""
        if self._facts.get(name) == fact:
            return False
        if fact is None:
            del self._facts[name]
        else:
            self._facts[name] = fact
        self._copy = None
        return True

    def copy(self) -> Mapping[str, T]:
        if self._copy is None:
            self._copy = dict(self._facts)
        return self._copy


def _follow(plural: str, handle: Callable[[str, Entry | None], None]) -> Callable[[Change], None]:
    """A handler that is given the object's name, and None for an object that is gone or cannot be read: it gives nothing."""

    def on_change(change: Change) -> None:
        kind, _, name = change.key.partition(".")
        if kind != plural:
            return
        try:
            handle(name, change.after)
        except (errors.HerdsmanError, ValueError, KeyError) as exc:
            log.error("grants_source_unreadable", kind=plural, name=name, error=str(exc))
            handle(name, None)

    return on_change
