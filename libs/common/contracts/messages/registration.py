"""How an agent comes to its cluster and to its credential."""

from __future__ import annotations

from pydantic import AwareDatetime, BaseModel, Field


class RegistrationIssue(BaseModel):
    identity: str
    cluster: str
    ttl_s: int = 3600


class IssuedRegistration(BaseModel):
    """The only time that a registration token's secret is seen."""

    token: str
    cluster: str
    cluster_uid: str
    expires_at: AwareDatetime


class ManifestRequest(BaseModel):
    """Which cluster does this (valid, unused) registration token belong to? Asked when the import manifest is fetched."""

    token: str = Field(max_length=256)


class AgentRegistration(BaseModel):
    """An agent exchanges its one-time token and its own public key for a credential."""

    token: str = Field(max_length=256)
    public_key: str = Field(max_length=64)
    agent_version: str = Field(default="", max_length=64)


class AgentCredential(BaseModel):
    """`jwt` is the NATS user JWT for `public_key`; the seed never left the agent. Renew after `renew_after_s`."""

    cluster: str
    cluster_uid: str
    jwt: str
    expires_at: AwareDatetime
    renew_after_s: int


class AgentRenewal(BaseModel):
    """Ask for a fresh JWT before the old one expires; the key stays the same.

    `public_key` is the key that the agent has: refused when another agent has registered for the cluster since.
    """

    agent_version: str = Field(default="", max_length=64)
    public_key: str = Field(default="", max_length=64)
