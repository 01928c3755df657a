"""Whom bindings are for, and whether anybody can come from there: indexed, so that a change costs what it touches.

Follows bindings, providers, users and groups by informer. `subject_reconciler` writes what `judge` says. Grants know nothing of it: such a binding
gives nothing by itself, for nobody can sign in who would have it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from libs.common import errors
from libs.common.access.principal import local_group_principal, local_user_principal
from libs.common.resources import codec
from libs.common.resources.access import RoleTemplateBinding
from libs.common.resources.identity import Group, User
from libs.common.resources.meta import Resource
from libs.common.resources.providers import LOCAL, IdentityProvider
from libs.common.store.objects import Objects

if TYPE_CHECKING:
    from libs.common.store.informer import Change, Informer

R = TypeVar("R", bound=Resource)
YIELD_EVERY = 500
"""Bindings looked at without letting other tasks run."""
REACHABLE = "SubjectReachable"


@dataclass(frozen=True, slots=True)
class Verdict:
    ok: bool
    reason: str
    message: str


FINE = Verdict(True, "Reachable", "people can sign in to whom this gives the role")
_DELETE = "delete this binding if it should not count then"


@dataclass(frozen=True, slots=True)
class _User:
    """`ways`: providers by which this person signs in. `gone`: principal ids of accounts that are no more."""

    principal: str
    ways: frozenset[str]
    gone: frozenset[str] = frozenset()
    service: bool = False


class Subjects:
    """`wake_binding` is told of each binding that says what is no longer true, `wake_provider` of each provider that opened or closed."""

    def __init__(
        self, bindings: Objects[RoleTemplateBinding], wake_binding: Callable[[str], None], wake_provider: Callable[[str], None]
    ) -> None:  # fmt: skip
        self._bindings = bindings
        self._wake_binding = wake_binding
        self._wake_provider = wake_provider
        self._begun = False
        self._principal_of: dict[str, str] = {}
        self._of_principal: defaultdict[str, set[str]] = defaultdict(set)
        self._principals_at: defaultdict[str, set[str]] = defaultdict(set)
        """Provider → principal ids in bindings that depend on it."""
        self._providers: dict[str, bool] = {}
        self._users: dict[str, _User] = {}
        self._by_principal: dict[str, _User] = {}
        self._gone: set[str] = set()
        self._groups: dict[str, str] = {}
        self._group_ids: set[str] = set()

    def follow(self, providers: Informer, users: Informer, groups: Informer) -> None:
        """Begin to learn, while the informers are still listing: then each entry costs its moment. Nobody is woken before `begin`."""
        providers.subscribe(self._on_provider)
        users.subscribe(self._on_user)
        groups.subscribe(self._on_group)
        self._bindings.informer.subscribe(self._on_binding)

    async def begin(self) -> None:
        """Everything has been listed once: judge all bindings by what is known, and from now on what changes."""
        self._begun = True
        await self.wake_due(list(self._principal_of))

    async def wake_due(self, names: Iterable[str]) -> int:
        """Wake those that are due, letting other tasks run in between. Returns how many."""
        due = 0
        for number, name in enumerate(names, 1):
            if self.is_due(name):
                due += 1
                self._wake_binding(name)
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        return due

    # ── answers ──

    def judge(self, binding: RoleTemplateBinding) -> Verdict:
        """What its condition should say now."""
        principal = binding.spec.principal
        provider, _, rest = principal.partition(":")
        if provider != LOCAL:
            if principal in self._gone:
                return _account_gone(provider)
            return self._judge_provider(provider)
        if rest.startswith("group:"):
            return FINE if principal in self._group_ids else _GROUP_GONE
        user = self._by_principal.get(principal)
        if user is None or user.service:
            # Who is gone takes the binding along: that is the sweeper's business.
            return FINE
        verdicts = [self._judge_provider(way) for way in sorted(user.ways)]
        if not verdicts:
            return _account_gone("")
        return next((v for v in verdicts if v.ok), verdicts[0])

    def is_due(self, name: str) -> bool:
        """Whether a binding says what is not true. One that never said anything need not say that all is well."""
        binding = self._find(name)
        return binding is not None and not binding.deleting and not is_said(binding, self.judge(binding))

    def _find(self, name: str) -> RoleTemplateBinding | None:
        """None also for one that cannot be read: the grants tell of it, and give nothing by it."""
        try:
            return self._bindings.get(name)
        except errors.Internal:
            return None

    def bindings_at(self, provider: str) -> list[str]:
        """Names of all bindings that depend on one provider."""
        return [name for principal in self._principals_at.get(provider, ()) for name in self._of_principal[principal]]

    def _judge_provider(self, name: str) -> Verdict:
        state = self._providers.get(name, True if name == LOCAL else None)
        if state:
            return FINE
        if state is None:
            return Verdict(
                False, "ProviderDeleted",
                f'there is no provider "{name}": this gives nothing to anybody, and counts again if one is made under that name; {_DELETE}',
            )  # fmt: skip
        return Verdict(
            False, "ProviderDisabled",
            f'the provider "{name}" is disabled: this gives nothing to anybody, and counts again when it is enabled; {_DELETE}',
        )  # fmt: skip

    # ── changes ──

    def _on_provider(self, change: Change) -> None:
        name, found = _read(IdentityProvider, change)
        before = self._providers.pop(name, None)
        if found is not None:
            self._providers[name] = found.spec.enabled and not found.deleting
        if self._begun and before != self._providers.get(name):
            self._wake_provider(name)

    def _on_user(self, change: Change) -> None:
        name, found = _read(User, change)
        before, after = self._users.pop(name, None), None if found is None else _user(found)
        if after is not None:
            self._users[name] = after
        if before == after:
            return
        if before is not None:
            self._by_principal.pop(before.principal, None)
            self._gone -= before.gone
        if after is not None:
            self._by_principal[after.principal] = after
            self._gone |= after.gone
        for user in (before, after):
            if user is not None and user.principal in self._of_principal:
                self._depend(user.principal, before)
        touched = {user.principal for user in (before, after) if user is not None}
        touched |= (before.gone if before is not None else frozenset()) ^ (
            after.gone if after is not None else frozenset()
        )
        self._wake(touched)

    def _on_group(self, change: Change) -> None:
        name, found = _read(Group, change)
        before = self._groups.pop(name, "")
        after = "" if found is None else local_group_principal(found.uid)
        if after:
            self._groups[name] = after
        if before != after:
            self._group_ids.discard(before)
            self._group_ids |= {after} - {""}
            self._wake({before, after})

    def _on_binding(self, change: Change) -> None:
        name = change.key.partition(".")[2]
        binding = self._find(name)
        before, after = self._principal_of.pop(name, ""), "" if binding is None else binding.spec.principal
        if before and before != after:
            self._of_principal[before].discard(name)
            if not self._of_principal[before]:
                del self._of_principal[before]
                for principals in self._principals_at.values():
                    principals.discard(before)
        if after:
            self._principal_of[name] = after
            if after not in self._of_principal:
                self._depend(after, None)
            self._of_principal[after].add(name)
            if self._begun and self.is_due(name):
                self._wake_binding(name)

    def _depend(self, principal: str, before: _User | None) -> None:
        """Note on which providers a principal depends now; `before`: the ways that a user had."""
        for way in before.ways if before is not None else ():
            self._principals_at[way].discard(principal)
        provider = principal.partition(":")[0]
        user = self._by_principal.get(principal)
        ways: Iterable[str] = (provider,) if provider != LOCAL else user.ways if user is not None else ()
        for way in ways:
            self._principals_at[way].add(principal)

    def _wake(self, principals: Iterable[str]) -> None:
        for principal in principals if self._begun else ():
            for name in self._of_principal.get(principal, ()):
                if self.is_due(name):
                    self._wake_binding(name)


def is_said(binding: RoleTemplateBinding, verdict: Verdict) -> bool:
    said = binding.status.condition(REACHABLE)
    if said is None:
        return verdict.ok
    if verdict.ok:
        return said.status == "True"
    return (said.status, said.reason, said.message) == ("False", verdict.reason, verdict.message)


_GROUP_GONE = Verdict(
    False, "GroupDeleted", "the group was deleted: this gives nothing to anybody any more, also if one is made under its name; delete this binding",
)  # fmt: skip


def _account_gone(provider: str) -> Verdict:
    where = f'at the provider "{provider}" ' if provider else ""
    return Verdict(
        False, "AccountGone",
        f"the person's account {where}was removed or deactivated there: this gives nothing to anybody, and counts again if the account comes back; {_DELETE}",
    )  # fmt: skip


def _user(user: User) -> _User:
    """Who has a password here, or no account anywhere, signs in here."""
    accounts = user.status.identities
    ways = {account.provider for account in accounts if not account.gone}
    if not accounts or user.private.password_hash:
        ways.add(LOCAL)
    return _User(
        user.status.principal_id or local_user_principal(user.uid), frozenset(ways),
        frozenset(account.principal_id for account in accounts if account.gone), user.spec.service,
    )  # fmt: skip


def _read(model: type[R], change: Change) -> tuple[str, R | None]:
    after = change.after
    name = change.key.partition(".")[2]
    return name, None if after is None else codec.decode(model, after.value, after.revision)
