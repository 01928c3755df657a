"""Kinds of the identity service: who people are (User), who belongs together (Group), and what lets them in (Token).

Passwords and token hashes are `private`: stored with the object, in no API answer.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from libs.common.resources.meta import ConditionedStatus, Label, Model, Resource, Time
from libs.common.resources.providers import LinkedIdentity


class UserSpec(Model):
    """`enabled: false` refuses every call of this person within a second and cuts the open streams."""

    display_name: str = Field(default="", max_length=256, description="The name that people see.")
    enabled: bool = Field(default=True, description="A disabled user is refused everywhere, at once.")
    service: bool = Field(
        default=False,
        description="A machine, such as a CI job: nobody signs in as it, tokens are issued for it. Cannot change.",
    )
    description: str = Field(default="", max_length=512, description="What it is for, and who looks after it.")
    keep_when_inactive: bool = Field(
        default=False, description="True: never disabled for not being used, such as an account for emergencies."
    )


class UserStatus(ConditionedStatus):
    """Conditions: `Inactive` is True when the user was disabled because nobody used it, and says what to do."""

    principal_id: str = Field(default="", description="The immutable id by which bindings name this person.")
    must_change_password: bool = Field(
        default=False,
        description="True while the password is one that somebody else chose: who signs in with it can change it, and do nothing else.",
    )
    second_factor: bool = Field(default=False, description="Whether a one-time code is asked for at sign-in.")
    last_login: Time | None = Field(default=None, description="When this person last signed in.")
    last_activity_time: Time | None = Field(
        default=None, description="The last sign-in or use of a token, up to an hour late."
    )
    identities: list[LinkedIdentity] = Field(
        default_factory=list,
        description="The person's accounts at providers, each with the groups that it had when last seen.",
    )


class PushedAccountPrivate(Model):
    """What a provider pushed of a person's account by SCIM. `document` is the account as it was pushed, without its groups."""

    external_id: str
    user_name: str
    active: bool = True
    groups: dict[str, str] = Field(default_factory=dict)
    """Id of a pushed group → principal id of that group."""
    document: dict[str, Any] = Field(default_factory=dict)
    created: Time
    modified: Time


class SignInPlace(Model):
    """From where somebody signed in. `account` as it was typed, with its provider; `network` an address, or an IPv6 /64."""

    account: str
    network: str
    at: Time


class UserPrivate(Model):
    password_hash: str = ""
    """Argon2id in PHC string format; empty = no password, sign-in refused."""
    sealed: dict[str, str] = Field(default_factory=dict)
    """Purpose → sealed text: `refresh:<provider>` (a refresh token), `totp` (the seed of one-time codes)."""
    totp_step: int = -1
    """The last 30-second step of which a one-time code was used."""
    recovery_hashes: list[str] = Field(default_factory=list)
    """SHA-256 in hex of the recovery codes that are left."""
    pushed: dict[str, PushedAccountPrivate] = Field(default_factory=dict)
    """Provider → the account that it pushed."""
    places: list[SignInPlace] = Field(default_factory=list)
    """The newest places from which this person signed in with a password."""


class User(Resource):
    """A person or machine that may sign in. The name is the user name and can't change."""

    KIND: ClassVar[str] = "User"
    spec: UserSpec = Field(default_factory=UserSpec)
    status: UserStatus = Field(default_factory=UserStatus)
    private: UserPrivate = Field(default_factory=UserPrivate, exclude=True)


class GroupSpec(Model):
    """Who is let in gets the group's roles from the next call on, and loses them when taken out."""

    display_name: str = Field(default="", max_length=256, description="The name that people see.")
    description: str = Field(default="", max_length=512, description="What it is for, and who looks after it.")
    members: list[Label] = Field(
        default_factory=list,
        max_length=5000,
        description="Names of users. The hub remembers whom each meant: a later user of the same name is no member.",
    )


class GroupStatus(ConditionedStatus):
    principal_id: str = Field(default="", description="The immutable id by which bindings name this group.")


class GroupPrivate(Model):
    uids: dict[str, str] = Field(default_factory=dict)
    """Name of a member → uid of the user who was meant."""


class Group(Resource):
    """Users of the hub, wherever their accounts are, who get the same roles. Groups are not members of groups."""

    KIND: ClassVar[str] = "Group"
    spec: GroupSpec = Field(default_factory=GroupSpec)
    status: GroupStatus = Field(default_factory=GroupStatus)
    private: GroupPrivate = Field(default_factory=GroupPrivate, exclude=True)


TokenPurpose = Literal["login", "session", "exec", "kubeconfig", "api", "federated"]
"""login: a command line's. session: a browser's. exec: short-lived, for kubectl, renewed by its parent. federated: for a workload."""


class TokenSpec(Model):
    """What the token may be used for; it holds no rights of its own, those are the user's, looked up on every call."""

    user: str = Field(description="Name of the User whose token this is.")
    user_uid: str = Field(description="uid of that User: a user made again under the same name is somebody else.")
    purpose: TokenPurpose = Field(default="api", description="What it was issued for.")
    description: str = Field(default="", max_length=256)
    clusters: list[Label] = Field(default_factory=list, description="Clusters it is good for; empty = all and the hub.")
    projects: list[Label] = Field(
        default_factory=list,
        description="Projects it is good for, in their clusters' namespaces; empty = no such limit.",
    )
    read_only: bool = Field(default=False, description="True: only get, list and watch.")
    provider: str = Field(
        default="",
        description="Provider at which its owner signed in, or `federated:NAME:UID` of the FederatedCredential it came by: without that it is refused. Empty = none.",
    )
    parent: str = Field(default="", description="Name of the token that it was made with: it is revoked with that one.")
    idle_seconds: int = Field(default=0, ge=0, description="It is refused when unused for so long; 0 = no such limit.")
    client_address: str = Field(default="", max_length=64, description="Address from which it was asked for.")
    expires_at: Time = Field(description="It is refused from this moment on.")


class TokenStatus(ConditionedStatus):
    last_used: Time | None = Field(default=None, description="Last use, written in batches, some minutes late.")


class TokenPrivate(Model):
    secret_hash: str = ""
    """SHA-256 of the secret half in hex; the secret has 256 random bits, so no slow hash is needed."""
    provider_session: str = ""
    """Digest of the session at the provider that it came from, by which the provider can end it; empty = none that is known."""


class Token(Resource):
    """A bearer token `hm_<name>_<secret>`; the secret is shown once, when it is issued."""

    KIND: ClassVar[str] = "Token"
    spec: TokenSpec
    status: TokenStatus = Field(default_factory=TokenStatus)
    private: TokenPrivate = Field(default_factory=TokenPrivate, exclude=True)
