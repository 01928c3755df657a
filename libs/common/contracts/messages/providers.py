"""Identity providers: searched and tested by administrators, and what they tell of by themselves."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class PrincipalSearch(BaseModel):
    """Users and groups to give roles to, by a part of their name. `provider` empty = all that are enabled."""

    identity: str
    text: str = Field(min_length=1, max_length=256)
    kind: Literal["", "user", "group"] = ""
    provider: str = Field(default="", max_length=63)
    limit: int = Field(default=20, ge=1, le=100)


class FoundPrincipal(BaseModel):
    principal_id: str
    provider: str
    kind: Literal["user", "group"]
    name: str
    display_name: str = ""
    email: str = ""


class FoundPrincipals(BaseModel):
    """`notices` say which providers did not answer, and where there is more than the limit."""

    principals: list[FoundPrincipal] = Field(default_factory=list)
    notices: list[str] = Field(default_factory=list)


class ProviderTest(BaseModel):
    """Try a provider as it is stored, enabled or not; with a name and password it is a sign-in that lets nobody in."""

    identity: str
    provider: str = Field(max_length=63)
    user: str = Field(default="", max_length=256)
    password: str = Field(default="", max_length=1024)


class ProviderTested(BaseModel):
    """`ok` False: `problem` says what to do. With a person, who that is and in which groups."""

    ok: bool
    problem: str = ""
    took_ms: int = 0
    principal_id: str = ""
    user_name: str = ""
    groups: list[str] = Field(default_factory=list, description="Names of the person's groups.")
    notices: list[str] = Field(default_factory=list)


class BackChannelLogout(BaseModel):
    """A provider says that somebody was signed out there (OpenID Connect Back-Channel Logout 1.0). Nobody has signed in."""

    provider: str = Field(max_length=63)
    logout_token: str = Field(max_length=16_384)
    client_address: str = ""


class BackChannelLoggedOut(BaseModel):
    """`error`: empty, or what the answer of 400 says, with words for whoever asked."""

    error: Literal["", "invalid_request", "temporarily_unavailable"] = ""
    description: str = ""


class ScimCall(BaseModel):
    """One call by SCIM (RFC 7644), for the provider that pushes. `query` are the parameters of the address, `base_url` is what `/Users` stands under."""

    identity: str
    provider: str
    operation: Literal["list", "read", "create", "replace", "patch", "delete"]
    kind: Literal["Users", "Groups", "ServiceProviderConfig", "ResourceTypes", "Schemas"]
    id: str = Field(default="", max_length=256)
    query: dict[str, str] = Field(default_factory=dict)
    body: dict[str, Any] | None = None
    base_url: str = ""


class ScimReply(BaseModel):
    """The answer, also where SCIM has an error of its own for what was wrong; `document` None = no body."""

    status: int
    document: dict[str, Any] | None = None
