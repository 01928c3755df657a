"""What identity states: events for the audit log, and counts of failed sign-ins for its other replicas."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, Field


class IdentityEvent(BaseModel):
    """What identity did or refused, for the audit log. Never a secret, and of what somebody typed the name of an account that exists alone;
    of a stranger's token at most what it says of its algorithm, its subject or itself, cut and printable.

    `actor` is who did it: proved, unless `outcome` is a failure of somebody who has shown no token; empty = the hub itself, or nobody knows. `account` is
    the user whom it is about. `count` above 1: so many alike since `since`, told together.
    """

    id: str = Field(pattern=r"^[0-9a-f-]{36}$", examples=["0d6e0c5e-6e0b-4a5c-9d9c-0a6b7d3f1c11"])
    at: AwareDatetime
    action: str = Field(pattern=r"^[a-z-]{1,40}$", examples=["sign-in"])
    outcome: Literal["success", "failure"]
    reason: str = Field(default="", pattern=r"^[a-z0-9_]{0,60}$", examples=["wrong_password"])
    code: int = Field(default=200, ge=0, le=599, examples=[401])
    by: Literal["person", "nobody", "hub"] = Field(
        description="Whether the actor came with a token or proved to be the account, nobody knows who it was, or the hub did it by itself."
    )
    actor: str = Field(default="", max_length=253)
    actor_uid: str = Field(default="", max_length=64)
    account: str = Field(default="", max_length=253)
    provider: str = Field(default="", max_length=63)
    token: str = Field(default="", max_length=63, description="Name of the token that was given, used or revoked.")
    resource: str = Field(default="", max_length=63, description="Plural of the kind of the object that it is about.")
    name: str = Field(default="", max_length=253, description="Name of that object.")
    address: str = Field(default="", max_length=64)
    agent: str = Field(default="", max_length=256, description="User agent.")
    note: str = Field(default="", max_length=1024)
    count: int = Field(default=1, ge=1)
    since: AwareDatetime | None = None


class IdentityEvents(BaseModel):
    """Answered once all are on their way into the audit log. An event may come twice, with one id: an answer was lost."""

    events: list[IdentityEvent] = Field(max_length=200)


class SignInCount(BaseModel):
    """How often an attempt failed. `key` is a hash: what somebody typed as a name may be a password."""

    kind: str = Field(max_length=16)
    key: str = Field(max_length=64)
    failures: int = Field(ge=0)


class SignInCounts(BaseModel):
    """One replica of identity tells the others. began: an attempt counts as failed from now; right: it was none, so it is taken back; stand: what
    the teller has, for somebody who has less.
    """

    teller: str = Field(max_length=36)
    throttle: str = Field(max_length=32)
    what: Literal["began", "right", "stand"]
    counts: list[SignInCount] = Field(max_length=4)
