"""Which calls are written down and how much of them: AuditPolicy objects compiled into one matcher. Pure.

All policies are one list of rules: policies in order of `spec.priority`, then name; each with its rules in order; at the end the built-in
ones. Of a call the first fitting rule that says a level decides the level, the first that says recordSessions decides that. A policy
that cannot be read counts, in its place, as one rule "Metadata and recorded sessions for everything": it can hide nothing, and what stood
in it to be hidden shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from libs.common.resources.audit import AuditPolicy, AuditResources, AuditRule, Level, Stage

HEALTH_PATHS = ("/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*")
BUILT_IN: tuple[AuditRule, ...] = (
    AuditRule(level="None", clusters=[""], verbs=["get"], non_resource_urls=list(HEALTH_PATHS)),
    AuditRule(level="Metadata"),
)
"""Everything at Metadata but the probes of the hub itself; sessions are recorded only where a policy says so."""
_UNREADABLE = AuditRule(level="Metadata", record_sessions=True)
BUILT_IN_NAME = "built-in"
_CACHE_LIMIT = 8192


class Facts(NamedTuple):
    """What rules are matched against. `cluster` is empty for the hub's own API; `resource` is empty for what is no resource."""

    verb: str
    user: str = ""
    groups: frozenset[str] = frozenset()
    cluster: str = ""
    api_group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    """Inside the cluster, without the query; counts only where `resource` is empty."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policies say of one call. `named` = the deciding rule names this very group and resource, not by `*` or by silence."""

    level: Level
    record_sessions: bool = False
    record_input: bool = False
    omit_stages: frozenset[Stage] = frozenset()
    policy: str = BUILT_IN_NAME
    named: bool = False

    @property
    def is_written(self) -> bool:
        return self.level != "None"

    @property
    def wants_request(self) -> bool:
        return self.level in ("Request", "RequestResponse")

    @property
    def wants_response(self) -> bool:
        return self.level == "RequestResponse"


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: AuditRule
    policy: str
    checks: tuple[Callable[[Facts], bool], ...]

    def fits(self, facts: Facts) -> bool:
        return all(check(facts) for check in self.checks)


class Policy:
    """The compiled list. Decisions are remembered by the facts that any rule looks at, so that one costs about a microsecond."""

    def __init__(self, policies: Iterable[AuditPolicy] = (), broken: Iterable[tuple[int, str]] = ()) -> None:
        """`broken`: (priority, name) of policies that can't be read."""
        listed = [(p.spec.priority, p.name, tuple(p.spec.rules)) for p in policies]
        listed += [(priority, name, (_UNREADABLE,)) for priority, name in broken]
        self._rules = [
            _compile(rule, name)
            for _, name, rules in [*sorted(listed, key=lambda item: item[:2]), (0, BUILT_IN_NAME, BUILT_IN)]
            for rule in rules
        ]
        rules = [compiled.rule for compiled in self._rules]
        self._by_user = any(r.users for r in rules)
        self._by_groups = any(r.groups for r in rules)
        self._by_namespace = any(r.namespaces for r in rules)
        self._by_name = any(part.resource_names for r in rules for part in r.resources)
        self._plain = not (self._by_user or self._by_groups or self._by_namespace or self._by_name)
        self._cache: dict[tuple[object, ...], Decision] = {}

    def decide(self, facts: Facts) -> Decision:
        """What is to be done about one call."""
        verb, user, groups, cluster, api_group, resource, subresource, namespace, name, path = facts
        if self._plain:
            key: tuple[object, ...] = (verb, cluster, api_group, resource, subresource, "" if resource else path)
        else:
            key = (
                verb, cluster, api_group, resource, subresource, "" if resource else path,
                user if self._by_user else "", groups if self._by_groups else "",
                namespace if self._by_namespace else "", name if self._by_name else "",
            )  # fmt: skip
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= _CACHE_LIMIT:
                # Strangers choose paths and verbs: what they fill is thrown away as a whole, which costs no more than it saves.
                self._cache.clear()
            found = self._cache[key] = self._decide(facts)
        return found

    def _decide(self, facts: Facts) -> Decision:
        level: _Compiled | None = None
        record: AuditRule | None = None
        for compiled in self._rules:
            wanted = (level is None and compiled.rule.level is not None) or (
                record is None and compiled.rule.record_sessions is not None
            )
            if not wanted or not compiled.fits(facts):
                continue
            if level is None and compiled.rule.level is not None:
                level = compiled
            if record is None and compiled.rule.record_sessions is not None:
                record = compiled.rule
            if level is not None and record is not None:
                break
        sessions = bool(record and record.record_sessions)
        typed = sessions and bool(record and record.record_input)
        if level is None or level.rule.level is None:
            # Not to be reached: the last built-in rule fits everything.
            return Decision("Metadata", sessions, typed)
        return Decision(
            level.rule.level,
            sessions,
            typed,
            frozenset(level.rule.omit_stages),
            level.policy,
            any(_names(part, facts) for part in level.rule.resources),
        )


def _names(part: AuditResources, facts: Facts) -> bool:
    return part.group == facts.api_group and facts.resource in {text.partition("/")[0] for text in part.resources}


def _compile(rule: AuditRule, policy: str) -> _Compiled:
    """Only the lists that are given become checks."""
    checks: list[Callable[[Facts], bool]] = []
    if rule.verbs and "*" not in rule.verbs:
        verbs = frozenset(rule.verbs)
        checks.append(lambda facts: facts.verb in verbs)
    if rule.clusters and "*" not in rule.clusters:
        clusters = frozenset(rule.clusters)
        checks.append(lambda facts: facts.cluster in clusters)
    elif rule.clusters and "" not in rule.clusters:
        checks.append(lambda facts: bool(facts.cluster))
    if rule.users and "*" not in rule.users:
        users = frozenset(rule.users)
        checks.append(lambda facts: facts.user in users)
    if rule.groups and "*" not in rule.groups:
        checks.append(_of_groups(rule.groups))
    if rule.namespaces and "*" not in rule.namespaces:
        namespaces = frozenset(rule.namespaces)
        checks.append(lambda facts: bool(facts.resource) and facts.namespace in namespaces)
    elif rule.namespaces:
        checks.append(lambda facts: bool(facts.namespace))
    if rule.resources:
        checks.append(_of_resources(rule.resources))
    if rule.non_resource_urls:
        checks.append(_of_paths(rule.non_resource_urls))
    return _Compiled(rule, policy, tuple(checks))


def _of_groups(groups: list[str]) -> Callable[[Facts], bool]:
    exact = frozenset(g for g in groups if not g.endswith("*"))
    prefixes = tuple(g[:-1] for g in groups if g.endswith("*"))
    return lambda facts: (
        not exact.isdisjoint(facts.groups) or (bool(prefixes) and any(g.startswith(prefixes) for g in facts.groups))
    )


def _of_resources(parts: list[AuditResources]) -> Callable[[Facts], bool]:
    def fits(facts: Facts) -> bool:
        if not facts.resource:
            return False
        full = f"{facts.resource}/{facts.subresource}" if facts.subresource else facts.resource
        forms = {"*", full, f"{facts.resource}/*", f"*/{facts.subresource}"} if facts.subresource else {"*", full}
        for part in parts:
            if part.group not in ("*", facts.api_group):
                continue
            if part.resources and forms.isdisjoint(part.resources):
                continue
            if not part.resource_names or facts.name in part.resource_names:
                return True
        return False

    return fits


def _of_paths(urls: list[str]) -> Callable[[Facts], bool]:
    exact = frozenset(u for u in urls if not u.endswith("*"))
    prefixes = tuple(u[:-1] for u in urls if u.endswith("*"))
    return lambda facts: (
        not facts.resource and (facts.path in exact or (bool(prefixes) and facts.path.startswith(prefixes)))
    )
