"""The grants, kept current from informers: what services hold and ask through `.current`.

A change costs what it touches: one binding recomputes one principal, heartbeats and sign-ins nothing. `.current` is never behind
the informers nor behind the clock, so a grant or a revocation counts on the first call after it arrived. Start at `start_live_grants`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from libs.common import errors
from libs.common.access.grants import Grants, ProjectFact, UserFact, find_next_expiry, project_fact, user_fact
from libs.common.access.held import NOTHING, Held, held_by
from libs.common.access.local_groups import LocalGroups
from libs.common.access.roles import EffectiveRole, resolve_roles
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
    """Follows informers, one for each of `SOURCES` by plural; `projects` and `groups` may be left out where none counts."""

    def __init__(self, informers: Mapping[str, Informer], now: Callable[[], datetime]) -> None:
        self._now = now
        self._informers = dict(informers)
        self._templates: dict[str, RoleTemplate] = {}
        self._bindings: dict[str, dict[str, RoleTemplateBinding]] = {}
        self._principal_of: dict[str, str] = {}
        self._expiring: dict[str, RoleTemplateBinding] = {}
        self._roles: dict[str, EffectiveRole] = {}
        self._held: dict[str, Held] = {}
        self._clusters: dict[str, str] = {}
        self._users: dict[str, UserFact] = {}
        self._projects: dict[str, ProjectFact] = {}
        self._groups = LocalGroups()
        self._roles_changed = False
        self._changed = False
        self._changed_principals: set[str] = set()
        self._compiled_at = now()
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
        binding = None if entry is None else codec.decode(RoleTemplateBinding, entry.value, entry.revision)
        principal = self._principal_of.get(name)
        if binding is not None and principal is not None and _gives_the_same(self._bindings[principal][name], binding):
            return
        self._principal_of.pop(name, None)
        self._expiring.pop(name, None)
        if principal is not None:
            del self._bindings[principal][name]
            self._changed_principals.add(principal)
        self._mark()
        if binding is None:
            return
        principal = binding.spec.principal
        self._principal_of[name] = principal
        self._bindings.setdefault(principal, {})[name] = binding
        if binding.spec.not_after is not None:
            self._expiring[name] = binding
        self._changed_principals.add(principal)

    def _on_cluster(self, name: str, entry: Entry | None) -> None:
        uid = "" if entry is None else str(codec.decode_document(entry.value, entry.revision)["metadata"]["uid"])
        self._put(self._clusters, name, uid or None)

    def _on_user(self, name: str, entry: Entry | None) -> None:
        fact = None if entry is None else user_fact(codec.decode(User, entry.value, entry.revision))
        self._put(self._users, name, fact)

    def _on_project(self, name: str, entry: Entry | None) -> None:
        project = None if entry is None else codec.decode(Project, entry.value, entry.revision)
        self._put(self._projects, name, None if project is None or project.deleting else project_fact(project))

    def _on_group(self, name: str, entry: Entry | None) -> None:
        before = self._groups.ids
        changed = self._groups.put(name, None if entry is None else codec.decode(Group, entry.value, entry.revision))
        if changed or self._groups.ids != before:
            self._mark()

    def _put(self, facts: dict[str, Any], name: str, fact: object | None) -> None:
        """Replace one fact; nothing is compiled again when it is what it was."""
        if facts.get(name) == fact:
            return
        if fact is None:
            del facts[name]
        else:
            facts[name] = fact
        self._mark()

    def _mark(self) -> None:
        self._changed = True
        self._wake.set()

    # ── compiling ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _compile(self, now: datetime) -> None:
        for name, binding in self._expiring.items():
            if binding.spec.not_after is not None and self._compiled_at < binding.spec.not_after <= now:
                self._changed_principals.add(self._principal_of[name])
        for principal in self._changed_principals:
            bindings = self._bindings.get(principal, {})
            held = held_by(bindings.values(), now)
            if held == NOTHING:
                self._held.pop(principal, None)
            else:
                self._held[principal] = held
            if not bindings:
                self._bindings.pop(principal, None)
        if self._roles_changed:
            self._roles = resolve_roles(self._templates.values())
        self._changed_principals.clear()
        self._roles_changed = self._changed = False
        self._compiled_at = now
        self._grants = Grants(
            roles=self._roles, held=dict(self._held), clusters=dict(self._clusters), users=dict(self._users),
            projects=dict(self._projects), local_groups=self._groups.by_uid, local_group_ids=self._groups.ids,
            next_expiry=find_next_expiry(self._expiring.values(), now),
        )  # fmt: skip
        self._wake.set()

    def _tell(self, grants: Grants) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback(grants)
            except Exception as exc:  # one listener's fault must not stop the others, nor the expiry timer
                log.error("grants_listener_failed", error=str(exc), exc_info=exc)


def _gives_the_same(before: RoleTemplateBinding, after: RoleTemplateBinding) -> bool:
    """Whether only words about a binding changed, such as its status."""
    return (before.uid, before.spec, before.deleting) == (after.uid, after.spec, after.deleting)


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
