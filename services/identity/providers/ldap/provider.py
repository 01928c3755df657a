"""The provider of an LDAP directory: sign-in, groups, refresh, search. All that is special about a kind of directory is in `layout`.

A person is found by the service account and proves the password by a bind of their own; without a service account people bind themselves, and then neither
a refresh nor a search is possible. A name that nobody has costs a bind, too.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NoReturn, TypeVar
from uuid import UUID

from libs.common import errors
from libs.common.observe import log
from libs.common.resources.providers import DirectorySettings, IdentityProvider
from services.identity.providers.base import Found, Gone, Group, Identity, Kind, Search
from services.identity.providers.ldap import filters
from services.identity.providers.ldap.account import id_of, primary_group_sid, text_of, why_unusable
from services.identity.providers.ldap.directory import Directory
from services.identity.providers.ldap.layout import Flavor, Layout, make_layout
from services.identity.providers.ldap.link import Entry, Link, WrongCredentials
from services.identity.providers.ldap.walk import FoundGroup, ParentCache, walk_up

_T = TypeVar("_T")
WRONG = "the user name or the password is wrong, or the user is disabled"
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
_WINDOWS_CODE = re.compile(r"data ([0-9a-f]{1,4})\b")
_SAID_BY_WINDOWS = {
    "532": "your password has expired: change it in your own network first",
    "533": "your account is disabled in the directory",
    "701": "your account has expired in the directory",
    "773": "you must change your password in your own network first",
}
"""What a domain controller says only to who gave the right password."""
_RESERVE_S = 1.0
"""Kept from the deadline of a sign-in, so that what was found is answered before it passes."""


def make_ldap(resource: IdentityProvider, settings: DirectorySettings) -> LdapProvider:
    """A provider of type `ldap` or `activeDirectory`."""
    return LdapProvider(
        resource.name, "activeDirectory" if resource.spec.type == "activeDirectory" else "ldap", settings
    )


class LdapProvider:
    """Implements `PasswordProvider`."""

    def __init__(
        self,
        name: str,
        flavor: Flavor,
        settings: DirectorySettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._name = name
        self._settings = settings
        self._layout = make_layout(flavor, settings)
        self._directory = Directory(name, settings)
        self._cache = ParentCache(time.monotonic)
        self._now = now

    async def test(self) -> None:
        """Reach a server, bind, and find somebody. Raises Invalid or Unavailable."""
        settings, layout = self._settings, self._layout
        if not settings.bind_dn:
            # Nobody is there to search as: what can be seen is whether a server answers, by a bind that must fail.
            try:
                await self._directory.check(
                    self._own_dn("nobody"), secrets.token_urlsafe(16), _nothing, settings.deadline_seconds
                )
            except WrongCredentials:
                return
            raise errors.Invalid("the directory lets people in with any password: it cannot be used")

        def look(link: Link) -> tuple[int, int]:
            people = link.search(
                settings.user_base, filters.users(layout, settings.user_filter), layout.user_attributes, limit=1
            )
            known = [e for e in people.entries if id_of(e.attributes, layout.user_id)]
            return len(people.entries), len(known)

        try:
            seen, known = await self._directory.run(look, settings.deadline_seconds)
        except WrongCredentials as exc:
            log.get("identity").warning("directory_bind_refused", provider=self._name, detail=exc.detail)
            raise errors.Invalid("the directory refuses bindDn with bindPassword: check both") from exc
        if not seen:
            raise errors.Invalid(
                f"no person was found below {settings.user_base}: check userBase and userFilter, and what bindDn may read"
            )
        if not known:
            raise errors.Invalid(
                f"people below {settings.user_base} have no readable attribute {layout.user_id}: set userIdAttribute"
            )

    async def sign_in(self, user_name: str, password: str) -> Identity:
        """See `PasswordProvider`. An empty password would be an anonymous bind, which every directory grants."""
        if not password or not _NAME.fullmatch(user_name) or "\x00" in password:
            raise errors.Unauthenticated(WRONG)
        ends = time.monotonic() + self._settings.deadline_seconds
        if not self._settings.bind_dn:
            return await self._sign_in_alone(user_name, password, ends)
        entry = await self._service(lambda link: self._find(link, user_name), ends)
        dn = entry.dn if entry is not None else _nobody(self._layout)
        try:
            await self._directory.check(dn, password, _nothing, _left(ends))
        except WrongCredentials as exc:
            self._refuse(exc)
        if entry is None:
            raise errors.Unauthenticated(WRONG)
        found = entry
        self._check_usable(found)
        return await self._service(lambda link: self._identity(link, found, ends), ends)

    async def refresh(self, account_id: str, refresh_secret: str) -> Identity:
        """See `Provider`."""
        if not self._settings.bind_dn:
            raise errors.Unauthenticated("this directory can only be asked when the person signs in")
        ends = time.monotonic() + self._settings.deadline_seconds

        def look(link: Link) -> Entry | None:
            layout = self._layout
            wanted = f"({layout.user_id}={_id_value(layout.user_id, account_id)})"
            found = link.search(
                layout.user_base,
                filters.users(layout, self._settings.user_filter, wanted),
                layout.user_attributes,
                limit=1,
            )
            return found.entries[0] if found.entries else None

        entry = await self._service(look, ends)
        if entry is None:
            raise Gone("the account is no longer in the directory")
        self._check_usable(entry)
        found = entry
        return await self._service(lambda link: self._identity(link, found, ends), ends)

    async def search(self, text: str, kind: Kind | None, limit: int) -> Search:
        """See `Provider`. What the person typed may stand anywhere in the name."""
        if not self._settings.bind_dn:
            raise errors.Unavailable(f'the provider "{self._name}" has no bindDn to search with')
        settings, layout = self._settings, self._layout

        def look(link: Link) -> Search:
            found: list[Found] = []
            cut = False
            if kind in (None, "user"):
                wanted = filters.contains((*layout.login, layout.user_name, "displayName", "cn", "mail"), text)
                result = link.search(
                    layout.user_base,
                    filters.users(layout, settings.user_filter, wanted),
                    layout.user_attributes,
                    limit=limit,
                )
                cut |= result.cut
                found += [self._found_user(e) for e in result.entries if id_of(e.attributes, layout.user_id)]
            if kind in (None, "group"):
                wanted = filters.contains((layout.group_name, "cn"), text)
                result = link.search(
                    layout.group_base,
                    filters.groups(layout, settings.group_filter, wanted),
                    layout.group_attributes,
                    limit=limit,
                )
                cut |= result.cut
                found += [Found("group", g.group.id, g.group.name) for g in self._groups(result.entries)]
            return Search(tuple(found[:limit]), cut or len(found) > limit)

        return await self._service(look, time.monotonic() + settings.deadline_seconds)

    async def aclose(self) -> None:
        await self._directory.aclose()

    # ── inside ──

    async def _service(self, work: Callable[[Link], _T], ends: float) -> _T:
        """Work as the service account; that it is refused is nothing that a person who signs in could change."""
        try:
            return await self._directory.run(work, _left(ends))
        except WrongCredentials as exc:
            log.get("identity").error("directory_bind_refused", provider=self._name, detail=exc.detail)
            raise errors.Unavailable(
                f'the directory "{self._name}" refuses our own account: tell an administrator'
            ) from exc

    async def _sign_in_alone(self, user_name: str, password: str, ends: float) -> Identity:
        def look(link: Link) -> Identity:
            entry = self._find(link, user_name)
            if entry is None:
                raise errors.Denied("the directory let you in and does not show your own entry: tell an administrator")
            self._check_usable(entry)
            return self._identity(link, entry, ends)

        try:
            return await self._directory.check(self._own_dn(user_name), password, look, _left(ends))
        except WrongCredentials as exc:
            self._refuse(exc)

    def _own_dn(self, user_name: str) -> str:
        """As whom somebody binds who was not looked up."""
        if self._layout.flavor == "activeDirectory":
            named = "@" in user_name or "\\" in user_name or not self._settings.login_domain
            return user_name if named else f"{user_name}@{self._settings.login_domain}"
        return f"{self._layout.login[0]}={filters.escape_rdn(user_name)},{self._layout.user_base}"

    def _refuse(self, exc: WrongCredentials) -> NoReturn:
        code = _WINDOWS_CODE.search(exc.detail) if self._layout.flavor == "activeDirectory" else None
        said = _SAID_BY_WINDOWS.get(code[1]) if code else None
        if said:
            raise errors.Denied(said) from exc
        raise errors.Unauthenticated(WRONG) from exc

    def _check_usable(self, entry: Entry) -> None:
        why = why_unusable(entry.attributes, self._now())
        if why:
            raise Gone(why)

    def _find(self, link: Link, user_name: str) -> Entry | None:
        layout = self._layout
        typed = user_name
        if layout.flavor == "activeDirectory" and "\\" in user_name:
            typed = user_name.rpartition("\\")[2]
        wanted = filters.login(layout, typed)
        found = link.search(
            layout.user_base, filters.users(layout, self._settings.user_filter, wanted), layout.user_attributes, limit=2
        )
        if len(found.entries) > 1:
            log.get("identity").warning(
                "directory_name_ambiguous", provider=self._name, entries=[e.dn for e in found.entries]
            )
            return None
        return found.entries[0] if found.entries else None

    def _identity(self, link: Link, entry: Entry, ends: float) -> Identity:
        layout = self._layout
        account_id = id_of(entry.attributes, layout.user_id)
        if not account_id:
            log.get("identity").error(
                "directory_id_missing", provider=self._name, attribute=layout.user_id, dn=entry.dn
            )
            raise errors.Unavailable(
                f'the directory "{self._name}" does not show the id of your account: tell an administrator'
            )
        name = text_of(entry.attributes, layout.user_name)

        def ask(members: Sequence[str]) -> Sequence[FoundGroup]:
            return self._search_groups(link, filters.members(layout, members))

        direct = list(ask([name if layout.members_by_name else entry.dn]))
        sid = primary_group_sid(entry.attributes)
        if sid:
            direct += self._search_groups(link, f"(objectSid={filters.escape_bytes(sid)})")
        walked = walk_up(
            direct, ask, self._cache, limit=self._settings.max_groups, is_late=lambda: time.monotonic() > ends - _RESERVE_S,
            nested=self._settings.nested_groups and not layout.members_by_name,
        )  # fmt: skip
        return Identity(
            id=account_id, user_name=name or account_id, truncated=walked.why,
            display_name=text_of(entry.attributes, "displayName") or text_of(entry.attributes, "cn"),
            email=text_of(entry.attributes, "mail"), groups=tuple(sorted(walked.groups.values(), key=lambda group: group.id)),
        )  # fmt: skip

    def _search_groups(self, link: Link, wanted: str) -> list[FoundGroup]:
        layout, settings = self._layout, self._settings
        found = link.search(
            layout.group_base, filters.groups(layout, settings.group_filter, wanted), layout.group_attributes,
            limit=settings.max_groups + 1,
        )  # fmt: skip
        return self._groups(found.entries)

    def _groups(self, entries: Sequence[Entry]) -> list[FoundGroup]:
        layout = self._layout
        return [
            FoundGroup(e.dn, Group(group_id, text_of(e.attributes, layout.group_name) or group_id))
            for e in entries
            if (group_id := id_of(e.attributes, layout.group_id))
        ]

    def _found_user(self, entry: Entry) -> Found:
        layout, attributes = self._layout, entry.attributes
        return Found(
            "user", id_of(attributes, layout.user_id), text_of(attributes, layout.user_name),
            text_of(attributes, "displayName") or text_of(attributes, "cn"), text_of(attributes, "mail"),
        )  # fmt: skip


def _left(ends: float) -> float:
    return max(0.1, ends - time.monotonic())


def _nothing(_link: Link) -> None:
    """The bind was all."""


def _nobody(layout: Layout) -> str:
    """A DN that nobody has: a bind as that is refused in the same way, and after about the same time, as a wrong password."""
    return f"cn={secrets.token_hex(8)},{layout.user_base}"


def _id_value(attribute: str, account_id: str) -> str:
    """An id as a filter wants it."""
    if attribute.lower() != "objectguid":
        return filters.escape(account_id)
    try:
        return filters.escape_bytes(UUID(account_id).bytes_le)
    except ValueError:
        return filters.escape(account_id)
