"""Bindings as the grants keep them: what decides and nothing else, found by who holds them and by what they give. Pure.

`live` keeps one index current; owners ask it at each write, so that no write looks at all bindings.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from sys import intern

from libs.common.resources.access import BindingScope, RoleTemplateBinding, Scope
from libs.common.resources.selectors import Requirement, selector_of

_STALE = 1_000
"""Moments in a heap that may be out of date before it is made anew."""


@dataclass(frozen=True, slots=True)
class BindingFact:
    """One binding. Exactly one of `everywhere`, `cluster`, `selector` and `project` says where it counts, or it counts nowhere."""

    name: str
    principal: str
    role: str
    everywhere: bool
    cluster: str
    cluster_uid: str
    selector: tuple[Requirement, ...]
    project: str
    project_uid: str
    not_after: datetime | None
    bound_at: datetime | None
    deleting: bool

    @property
    def scope(self) -> BindingScope:
        return BindingScope(
            all=self.everywhere, cluster=self.cluster or None, cluster_uid=self.cluster_uid or None, project=self.project or None,
            project_uid=self.project_uid or None,
            cluster_selector=selector_of(self.selector) if self.selector else None,
        )  # fmt: skip

    def is_counting(self, now: datetime) -> bool:
        """Whether it gives anything at all at `now`: not expired, not being deleted, one principal, exactly one scope."""
        alive = self.not_after is None or now < self.not_after
        one_scope = self.everywhere + bool(self.cluster) + bool(self.selector) + bool(self.project) == 1
        return alive and one_scope and bool(self.principal) and not self.deleting

    def fits(self, role_scope: Scope) -> bool:
        """Whether a role of this scope counts where this binds it: roles that were made again under their name may not."""
        if role_scope == "project":
            return bool(self.project)
        return self.everywhere or (role_scope == "cluster" and not self.project)


AnyBinding = RoleTemplateBinding | BindingFact


def fact_of(binding: AnyBinding) -> BindingFact:
    """What of a binding decides. The same texts are kept once, however many bindings say them."""
    if isinstance(binding, BindingFact):
        return binding
    spec, scope = binding.spec, binding.spec.scope
    return BindingFact(
        binding.name, intern(spec.principal), intern(spec.role), scope.all, intern(scope.cluster or ""),
        intern(scope.cluster_uid or ""), scope.cluster_selector.requirements if scope.cluster_selector else (),
        intern(scope.project or ""), intern(scope.project_uid or ""), spec.not_after,
        binding.metadata.creation_timestamp, binding.deleting,
    )  # fmt: skip


class BindingIndex:
    """All bindings by name, by principal and by role. What it answers is a view: whoever waits while looking takes a copy."""

    def __init__(self, bindings: Iterable[AnyBinding] = ()) -> None:
        self._by_name: dict[str, BindingFact] = {}
        self._by_principal: dict[str, dict[str, BindingFact]] = {}
        self._by_role: dict[str, dict[str, BindingFact]] = {}
        self._selecting: dict[str, BindingFact] = {}
        for binding in bindings:
            self.put(binding.name, fact_of(binding))

    def put(self, name: str, fact: BindingFact | None) -> tuple[str, ...]:
        """The binding as it is now, None = gone. Returns the principals that this may concern."""
        before = self._by_name.pop(name, None)
        self._selecting.pop(name, None)
        if before is not None:
            _discard(self._by_principal, before.principal, name)
            _discard(self._by_role, before.role, name)
        if fact is not None:
            self._by_name[name] = fact
            self._by_principal.setdefault(fact.principal, {})[name] = fact
            self._by_role.setdefault(fact.role, {})[name] = fact
            if fact.selector:
                self._selecting[name] = fact
        return tuple(f.principal for f in (before, fact) if f is not None)

    def get(self, name: str) -> BindingFact | None:
        return self._by_name.get(name)

    def of_principal(self, principal_id: str) -> Collection[BindingFact]:
        return self._by_principal.get(principal_id, {}).values()

    def of_role(self, role: str) -> Collection[BindingFact]:
        return self._by_role.get(role, {}).values()

    def selecting(self) -> Collection[BindingFact]:
        """Those that name their clusters by labels."""
        return self._selecting.values()

    def principals(self) -> Collection[str]:
        """Everybody who has a binding, whether or not it counts."""
        return self._by_principal.keys()


class Expiries:
    """When which binding stops counting, the soonest first: a change costs the logarithm of how many there are."""

    def __init__(self) -> None:
        self._moments: dict[str, datetime] = {}
        self._heap: list[tuple[datetime, str]] = []

    def put(self, name: str, moment: datetime | None) -> None:
        """The binding stops at `moment`; None = it does not, or is gone."""
        if self._moments.get(name) == moment:
            return
        if moment is None:
            del self._moments[name]
        else:
            self._moments[name] = moment
            heapq.heappush(self._heap, (moment, name))
        if len(self._heap) > 2 * len(self._moments) + _STALE:
            self._heap = [(moment, name) for name, moment in self._moments.items()]
            heapq.heapify(self._heap)

    def next(self) -> datetime | None:
        """The first moment at which one stops."""
        while self._heap and self._moments.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take(self, now: datetime) -> list[str]:
        """Names of those that have stopped by `now`; each is told once."""
        stopped = []
        while (moment := self.next()) is not None and moment <= now:
            _, name = heapq.heappop(self._heap)
            del self._moments[name]
            stopped.append(name)
        return stopped


def _discard(index: dict[str, dict[str, BindingFact]], key: str, name: str) -> None:
    names = index[key]
    del names[name]
    if not names:
        del index[key]
