"""Which workloads elsewhere may be a service user here for a while: one FederatedCredential for each trust, with no secret in it.

A workload (a CI job, a pod) shows the token that its own platform signed for it, and gets a short-lived token of the service user. The
bindings of that user say what it may do; a credential only narrows that. `libs.common.access.federation` says which tokens still count.
"""

from __future__ import annotations

from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from libs.common.resources.meta import ConditionedStatus, Label, Model, Resource
from libs.common.resources.providers import HttpsUrl

MAX_TTL_S = 3600


def _check_issuer(address: str) -> str:
    parts = urlsplit(address)
    if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be an https:// address without user, query and fragment, exactly as its tokens name it")
    return address


def _check_subject(pattern: str) -> str:
    if pattern.startswith("*"):
        raise ValueError("must not begin with *: anybody with a token of this issuer could match")
    return pattern


Issuer = Annotated[HttpsUrl, AfterValidator(_check_issuer)]
Subject = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_check_subject)]
Audience = Annotated[str, StringConstraints(min_length=1, max_length=512)]
ClaimName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class FederatedCredentialSpec(Model):
    """Which tokens of one issuer are exchanged for tokens of one service user. In patterns `*` is any text; nothing else is special."""

    user: Label = Field(description="Name of the service user that the workload becomes. Cannot change.")
    user_uid: str = Field(
        default="", max_length=64, description="uid of that user: one made again under the same name is not meant."
    )
    issuer: Issuer = Field(max_length=1024, description="Who signs the workload's tokens, exactly as they name it.")
    audiences: list[Audience] = Field(
        min_length=1, max_length=10, description="The token must be made out to one of these: the hub's own address."
    )
    subject: Subject = Field(description="Pattern of the token's subject; it must not begin with *.")
    claims: dict[ClaimName, Pattern] = Field(
        default_factory=dict, max_length=20, description="Claim → pattern: all must be in the token and match, too."
    )
    jwks: str = Field(
        default="", max_length=64_000,
        description="The issuer's public keys as a JWK set (JSON text), where the hub cannot reach it; empty = by discovery.",
    )  # fmt: skip
    ca: str = Field(
        default="",
        max_length=64_000,
        description="PEM of the authorities to trust at the issuer; empty = the system's.",
    )
    clusters: list[Label] = Field(
        default_factory=list, max_length=100, description="Clusters the tokens are good for; empty = all and the hub."
    )
    projects: list[Label] = Field(
        default_factory=list, max_length=100, description="Projects the tokens are good for; empty = no such limit."
    )
    read_only: bool = Field(default=False, description="True: the tokens are good for get, list and watch alone.")
    ttl_seconds: int = Field(default=900, ge=60, le=MAX_TTL_S, description="How long each token is good.")
    enabled: bool = Field(default=True, description="False: nothing is exchanged, and its tokens end at once.")
    description: str = Field(default="", max_length=512, description="What it is for, and who looks after it.")


class FederatedCredentialStatus(ConditionedStatus):
    pass


class FederatedCredential(Resource):
    """A trust in the workloads of one issuer. Whoever writes it must be allowed to issue tokens for its service user."""

    KIND: ClassVar[str] = "FederatedCredential"
    spec: FederatedCredentialSpec
    status: FederatedCredentialStatus = Field(default_factory=FederatedCredentialStatus)
