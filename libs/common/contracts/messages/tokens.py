"""Tokens and sessions: issued, exchanged, extended, revoked, used."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field


class IssuedToken(BaseModel):
    """The only time that a token's secret is seen."""

    token: str
    name: str
    user: str
    expires_at: AwareDatetime
    must_change_password: bool = Field(
        default=False, description="Until the password is changed the token is good for nothing else."
    )
    must_set_second_factor: bool = Field(
        default=False, description="Until a second factor is set up the token is good for nothing else."
    )
    notices: list[str] = Field(
        default_factory=list, description="What the person should know: groups that could not be read."
    )


class TokenIssue(BaseModel):
    """Issue a token to the caller; `ttl_s` is cut to the allowed maximum for the purpose.

    With `user`, for that service user, by whoever may update it and holds all of its rights.
    """

    identity: str
    user: str = Field(default="", max_length=253)
    purpose: Literal["kubeconfig", "api", "exec"]
    description: str = Field(default="", max_length=256)
    clusters: list[str] = Field(default_factory=list)
    projects: list[str] = Field(default_factory=list)
    read_only: bool = False
    ttl_s: int | None = None


class TokenExchange(BaseModel):
    """A workload's own token for one of the service user that a FederatedCredential names (RFC 8693). Nobody has signed in."""

    subject_token: str = Field(max_length=16_384)
    resource: str = Field(default="", max_length=253, description="Name of the FederatedCredential that is meant.")
    client_address: str = ""


class TokenExchanged(BaseModel):
    """`issued`, or `error` as RFC 6749 5.2 and RFC 8693 2.2.2 name it, with words for whoever asked."""

    issued: IssuedToken | None = None
    expires_in_s: int = 0
    error: Literal["", "invalid_request", "invalid_grant"] = ""
    description: str = ""


class SessionExtend(BaseModel):
    """A browser's session was used: it goes on for its idle limit from now, never beyond its absolute one."""

    identity: str


class SessionExtended(BaseModel):
    expires_at: AwareDatetime
    ends_at: AwareDatetime = Field(description="Then the person must sign in again, whatever is done until then.")


class TokenRevoke(BaseModel):
    """Revoke the caller's own token: sign-out. `return_to`: the page to come back to from the provider's own sign-out."""

    identity: str
    return_to: str = Field(default="", max_length=2048)


class TokenRevoked(BaseModel):
    """Where to send the browser so that it is signed out at the provider as well, which brings it back with `state`; empty = nowhere."""

    url: str = ""
    state: str = ""
    still_signed_in_at: str = Field(
        default="", description="What the provider is called where the person's own session may go on; empty = nowhere."
    )


class TokenUse(BaseModel):
    name: str = Field(max_length=63)
    at: AwareDatetime


class TokenUses(BaseModel):
    """Tokens that a front door saw used, each with its last use there."""

    uses: list[TokenUse] = Field(max_length=1000)
