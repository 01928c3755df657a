"""What is where in a directory: attribute names by its kind, with what the settings say instead. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from libs.common.resources.providers import DirectorySettings

Flavor = Literal["ldap", "activeDirectory"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Attribute names are as the directory's schema writes them; `login` are tried in one filter. `*_class`: object classes."""

    flavor: Flavor
    user_base: str
    group_base: str
    user_class: str
    group_class: str
    login: tuple[str, ...]
    user_id: str
    group_id: str
    user_name: str
    group_name: str
    member: str
    state: tuple[str, ...]
    """Operational attributes that say whether an account is in use."""

    @property
    def user_attributes(self) -> tuple[str, ...]:
        """All that is read of a person, and nothing else."""
        return tuple(
            dict.fromkeys((self.user_id, self.user_name, *self.login, "displayName", "cn", "mail", *self.state))
        )

    @property
    def group_attributes(self) -> tuple[str, ...]:
        """Never the members: a group may have ten thousand."""
        return tuple(dict.fromkeys((self.group_id, self.group_name)))

    @property
    def members_by_name(self) -> bool:
        """RFC 2307 groups hold user names, and no groups."""
        return self.member.lower() == "memberuid"


def make_layout(flavor: Flavor, settings: DirectorySettings) -> Layout:
    """The layout of one provider."""
    windows = flavor == "activeDirectory"
    return Layout(
        flavor=flavor,
        user_base=settings.user_base,
        group_base=settings.group_base or settings.user_base,
        user_class="user" if windows else "person",
        group_class="group" if windows else "",
        login=tuple(settings.login_attributes) or (("sAMAccountName", "userPrincipalName") if windows else ("uid",)),
        user_id=settings.user_id_attribute or ("objectGUID" if windows else "entryUUID"),
        group_id=settings.group_id_attribute or ("objectGUID" if windows else "entryUUID"),
        user_name=settings.user_name_attribute or ("sAMAccountName" if windows else "uid"),
        group_name=settings.group_name_attribute or ("sAMAccountName" if windows else "cn"),
        member=settings.member_attribute or "member",
        state=(
            ("userAccountControl", "accountExpires", "lockoutTime", "objectSid", "primaryGroupID")
            if windows
            else ("pwdAccountLockedTime", "nsAccountLock", "shadowExpire", "krbPrincipalExpiration")
        ),
    )
