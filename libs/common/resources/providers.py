"""Where people's accounts are: one IdentityProvider for each directory, organisation or issuer, many of a kind at a time.

Secrets (a bind password, a client secret) are written as fields of the spec and read by nobody: the owner moves them into `private`,
sealed, and `status.secrets` says which are set. A provider is tested with the settings in the write before it is enabled.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from libs.common.resources.meta import ConditionedStatus, Label, Model, Resource, Time

ProviderType = Literal["local", "ldap", "activeDirectory", "github", "oidc"]
LOCAL = "local"
"""The one provider that every hub has: its own accounts."""
Seconds = int


def _check_server(address: str) -> str:
    if not address.startswith(("ldap://", "ldaps://")) or not address.partition("://")[2].strip("/"):
        raise ValueError("must be ldap://HOST[:PORT] or ldaps://HOST[:PORT]")
    return address


def _check_https(address: str) -> str:
    host = (
        address.partition("://")[2].partition("/")[0].rpartition(":")[0]
        or address.partition("://")[2].partition("/")[0]
    )
    if address.startswith("https://") or (
        address.startswith("http://") and host in ("127.0.0.1", "localhost", "[::1]")
    ):
        return address.rstrip("/")
    raise ValueError("must be an https:// address")


_PERIOD = re.compile(r"([1-9][0-9]{0,7})([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHORTEST_PERIOD, _LONGEST_PERIOD = timedelta(minutes=1), timedelta(days=3650)


def parse_period(text: str) -> timedelta | None:
    """`90d`, `12h`, `30m`; None for an empty text, which means never. Raises ValueError."""
    if not text:
        return None
    found = _PERIOD.fullmatch(text)
    period = timedelta(seconds=int(found[1]) * _UNIT_S[found[2]]) if found is not None else timedelta()
    if not _SHORTEST_PERIOD <= period <= _LONGEST_PERIOD:
        raise ValueError("must be a time like 90d, 12h or 30m, from a minute to ten years; empty = never")
    return period


def _check_period(text: str) -> str:
    parse_period(text)
    return text


Period = Annotated[str, AfterValidator(_check_period)]
Server = Annotated[str, AfterValidator(_check_server)]
HttpsUrl = Annotated[str, AfterValidator(_check_https)]


class LocalSettings(Model):
    """Rules for accounts of the hub itself."""

    min_password_length: int = Field(default=12, ge=8, le=128, description="Fewest characters of a new password.")
    require_one_time_code: bool = Field(
        default=False,
        description="True: who signed in here and has no second factor must set one up, and can do nothing else before; at once.",
    )
    disable_inactive_after: Period = Field(
        default="", max_length=16,
        description="Users of the hub, wherever they sign in, who neither did nor used a token for so long are disabled: 90d; empty = never. Not the last administrator.",
    )  # fmt: skip
    disable_inactive_services_after: Period = Field(
        default="", max_length=16, description="The same for service users, whose tokens nobody used for so long; empty = never."
    )  # fmt: skip


class DirectorySettings(Model):
    """How an LDAP directory is reached and read. The defaults for what is left out depend on the provider's type."""

    servers: list[Server] = Field(min_length=1, max_length=10, description="Tried in this order; ldaps:// or ldap://.")
    start_tls: bool = Field(default=False, description="Upgrade ldap:// connections to TLS before anything is said.")
    ca: str = Field(default="", max_length=64_000, description="PEM of the authorities to trust; empty = the system's.")
    allow_plain_text: bool = Field(
        default=False, description="True: passwords may cross the network unencrypted. Never needed on a good network."
    )
    bind_dn: str = Field(
        default="", max_length=512, description="Account that searches; empty = people bind themselves."
    )
    bind_password: str = Field(default="", max_length=1024, description="Its password: written, never read.")
    user_base: str = Field(min_length=1, max_length=512, description="Where people are: dc=example,dc=org.")
    group_base: str = Field(default="", max_length=512, description="Where groups are; empty = as user_base.")
    user_filter: str = Field(default="", max_length=1024, description="LDAP filter that every person must match, too.")
    group_filter: str = Field(default="", max_length=1024, description="LDAP filter that every group must match, too.")
    login_attributes: list[str] = Field(
        default_factory=list, description="Attributes in which the name typed is looked up."
    )
    user_id_attribute: str = Field(default="", description="Attribute that never changes: entryUUID, objectGUID.")
    group_id_attribute: str = Field(default="", description="The same for groups.")
    user_name_attribute: str = Field(default="", description="Attribute from which the hub's user name is made.")
    group_name_attribute: str = ""
    member_attribute: str = Field(default="", description="Attribute of a group that holds its members.")
    nested_groups: bool = Field(default=True, description="Whether members of groups in groups count.")
    login_domain: str = Field(default="", description="Active Directory: domain of names that are typed without one.")
    timeout_seconds: Seconds = Field(default=5, ge=1, le=60, description="Longest wait for one answer of a server.")
    deadline_seconds: Seconds = Field(
        default=15,
        ge=2,
        le=120,
        description="Longest time for all of one sign-in; groups that were not reached by then are told.",
    )
    max_groups: int = Field(
        default=1000, ge=1, le=5000, description="More groups than these of one person are left out, and told."
    )


class GitHubSettings(Model):
    """An OAuth app of GitHub, or of GitHub Enterprise Server by its URL."""

    url: HttpsUrl = Field(default="https://github.com", description="Address of GitHub, or of your Enterprise Server.")
    client_id: str = Field(min_length=1, max_length=256)
    client_secret: str = Field(default="", max_length=1024, description="Written, never read.")
    organizations: list[str] = Field(
        default_factory=list, max_length=100, description="Only members of one of these may sign in; empty = everybody."
    )
    ca: str = Field(default="", max_length=64_000, description="PEM of the authorities to trust; empty = the system's.")
    timeout_seconds: Seconds = Field(default=10, ge=1, le=60)


class OidcSettings(Model):
    """An OpenID Connect issuer, found by discovery."""

    issuer: HttpsUrl = Field(description="The issuer exactly as its tokens name it.")
    client_id: str = Field(min_length=1, max_length=256)
    client_secret: str = Field(
        default="", max_length=4096, description="Written, never read; empty = a public client with PKCE."
    )
    scopes: list[str] = Field(default_factory=lambda: ["openid", "profile", "email"], max_length=20)
    user_name_claim: str = Field(
        default="preferred_username", description="Claim from which the hub's user name is made."
    )
    groups_claim: str = Field(default="groups", description="Claim that lists the person's groups.")
    account_id_claim: Literal["sub", "oid"] = Field(
        default="sub",
        description="Claim that names the account for ever; oid: Entra ID's object id. Whoever signed in before a change is a stranger after it.",
    )
    scim: bool = Field(
        default=False,
        description="True: the issuer may push users and groups by SCIM, and the groups of who was pushed are those pushed, not the claim's.",
    )
    sign_out: Literal["hub", "provider"] = Field(
        default="hub",
        description="What signing out on the hub's page ends: the session here alone, or the one at the issuer, too (RP-Initiated Logout 1.0).",
    )
    ca: str = Field(default="", max_length=64_000, description="PEM of the authorities to trust; empty = the system's.")
    timeout_seconds: Seconds = Field(default=10, ge=1, le=60)
    clock_skew_seconds: Seconds = Field(default=60, ge=0, le=300, description="How far the issuer's clock may be off.")


class IdentityProviderSpec(Model):
    """Exactly the settings of the provider's type are given."""

    type: ProviderType
    display_name: str = Field(default="", max_length=64, description="What the button says; empty = the name.")
    enabled: bool = Field(default=False, description="Whether people may sign in. It is tested before it becomes true.")
    create_users: bool = Field(
        default=True, description="Whether a first sign-in makes a user; false: only who was linked before may sign in."
    )
    allowed_principals: list[str] = Field(
        default_factory=list,
        max_length=1000,
        description="Principal ids of users and groups that may sign in; empty = all.",
    )
    refresh_seconds: Seconds = Field(
        default=900, ge=60, le=86_400, description="How often the groups of people who are active are read again."
    )
    max_age_seconds: Seconds = Field(
        default=86_400, ge=300, le=30 * 86_400,
        description="Groups that could not be read for so long count no more, and the person must sign in again.",
    )  # fmt: skip
    check_seconds: Seconds = Field(
        default=60,
        ge=5,
        le=86_400,
        description="How often the hub looks whether the provider answers: the condition Ready.",
    )
    local: LocalSettings | None = None
    ldap: DirectorySettings | None = None
    active_directory: DirectorySettings | None = None
    github: GitHubSettings | None = None
    oidc: OidcSettings | None = None

    @model_validator(mode="after")
    def _check_settings(self) -> IdentityProviderSpec:
        given = [name for name, field in SETTINGS_FIELDS.items() if getattr(self, field) is not None]
        if given != [self.type] and not (self.type == LOCAL and not given):
            raise ValueError(
                f'give exactly the settings "{self.type}" for a provider of that type, not {given or "none"}'
            )
        return self

    @property
    def settings(self) -> Model:
        """Those of the provider's type."""
        return getattr(self, SETTINGS_FIELDS[self.type]) or LocalSettings()


SETTINGS_FIELDS = {
    "local": "local", "ldap": "ldap", "activeDirectory": "active_directory", "github": "github", "oidc": "oidc",
}  # fmt: skip
SECRET_FIELDS: dict[str, tuple[str, ...]] = {
    "local": (), "ldap": ("bind_password",), "activeDirectory": ("bind_password",), "github": ("client_secret",),
    "oidc": ("client_secret",),
}  # fmt: skip
"""By type: fields of the settings that are moved into `private`."""


class IdentityProviderStatus(ConditionedStatus):
    """Conditions: `Ready` says whether the provider answers now."""

    secrets: list[str] = Field(default_factory=list, description="Names of the secret fields that are set.")
    last_tested: Time | None = Field(default=None, description="When the settings were last tested successfully.")


class IdentityProviderPrivate(Model):
    sealed: dict[str, str] = Field(default_factory=dict)
    """Secret field → its sealed text."""


class IdentityProvider(Resource):
    """A source of accounts. The name is the first part of every principal id from it and can't change."""

    KIND: ClassVar[str] = "IdentityProvider"
    spec: IdentityProviderSpec
    status: IdentityProviderStatus = Field(default_factory=IdentityProviderStatus)
    private: IdentityProviderPrivate = Field(default_factory=IdentityProviderPrivate, exclude=True)


class LinkedIdentity(Model):
    """One person's account at one provider, as last seen there: a snapshot with an age."""

    provider: Label
    principal_id: str = Field(description="`<provider>:user:<immutable id>`.")
    user_name: str = Field(default="", max_length=256, description="The name there, when last seen.")
    email: str = Field(default="", max_length=320)
    groups: list[str] = Field(default_factory=list, description="Principal ids of the person's groups there, sorted.")
    truncated: str = Field(default="", max_length=512, description="Why some groups are missing; empty = none is.")
    refreshed_at: Time = Field(description="When the groups were read.")
    gone: str = Field(
        default="", max_length=512, description="Why the account counts for nothing: it was removed or disabled there."
    )
    linked_at: Time
