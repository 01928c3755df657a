"""A provider of accounts in memory, for tests of what surrounds providers. It passes the conformance suite.

Not imitated: waiting, connections, truncation by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from libs.common import errors
from services.identity.providers.base import Found, Gone, Group, Identity, Kind, Search

STAFF = Group("g-staff", "staff")


@dataclass
class Scripted:
    """`accounts`: user name → (password, identity); `problem`: what every call raises."""

    accounts: dict[str, tuple[str, Identity]] = field(default_factory=dict)
    problem: errors.HerdsmanError | None = None
    closed: bool = False

    def add(
        self, name: str, password: str, *, groups: tuple[Group, ...] = (STAFF,), account_id: str = "", **more: str
    ) -> Identity:
        identity = Identity(account_id or f"id-{name}", name, groups=groups, **more)
        self.accounts[name] = (password, identity)
        return identity

    def change(self, name: str, **fields: object) -> None:
        password, identity = self.accounts[name]
        self.accounts[name] = (password, replace(identity, **fields))

    def _check(self) -> None:
        if self.problem is not None:
            raise self.problem

    async def test(self) -> None:
        self._check()

    async def sign_in(self, user_name: str, password: str) -> Identity:
        self._check()
        known = self.accounts.get(user_name)
        if known is None or not password or known[0] != password:
            raise errors.Unauthenticated("the user name or the password is wrong, or the user is disabled")
        return known[1]

    async def refresh(self, account_id: str, refresh_secret: str) -> Identity:
        self._check()
        for _, identity in self.accounts.values():
            if identity.id == account_id:
                return identity
        raise Gone("the account is gone")

    async def search(self, text: str, kind: Kind | None, limit: int) -> Search:
        self._check()
        users = [Found("user", i.id, i.user_name) for _, i in self.accounts.values()]
        groups = {g.id: Found("group", g.id, g.name) for _, i in self.accounts.values() for g in i.groups}
        found = [
            f for f in (*users, *groups.values()) if text.casefold() in f.name.casefold() and kind in (None, f.kind)
        ]
        return Search(tuple(found[:limit]), len(found) > limit)

    async def aclose(self) -> None:
        self.closed = True
