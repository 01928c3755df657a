"""Kinds that are answered and never stored: created like a TokenRequest, their secret is seen once, in the answer.

`surface` lists them beside the stored kinds; the gateway's `virtual` answers them.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from libs.common.resources.meta import Label, Model, Resource, Time


class KubeconfigSpec(Model):
    clusters: list[Label] = Field(
        default_factory=list,
        max_length=1000,
        description="Clusters to have a context for; empty = all that you may see, and the hub.",
    )
    ttl_seconds: int | None = Field(
        default=None, ge=60, description="How long the token in it lives; cut to the allowed maximum."
    )
    read_only: bool = Field(default=False, description="True: the token only gets, lists and watches.")
    without_token: bool = Field(
        default=False,
        description="True: no token is made; whoever asked adds a way to get one, such as an exec plug-in.",
    )
    description: str = Field(default="", max_length=256)


class KubeconfigStatus(Model):
    kubeconfig: str = Field(
        default="", description="The kubeconfig file, with a token in it: keep it as you keep a password."
    )
    token_name: str = Field(
        default="", description="Name of the Token in it: delete that to make this kubeconfig useless."
    )
    expires_at: Time | None = None


class Kubeconfig(Resource):
    """A kubeconfig with a context for each cluster and, if no clusters are named, `herdsman` for the hub itself."""

    KIND: ClassVar[str] = "Kubeconfig"
    spec: KubeconfigSpec = Field(default_factory=KubeconfigSpec)
    status: KubeconfigStatus = Field(default_factory=KubeconfigStatus)


class TokenRequestSpec(Model):
    purpose: Literal["api", "exec"] = Field(
        default="api",
        description="api: for scripts. exec: for kubectl, short-lived, and revoked with the token that asked for it.",
    )
    description: str = Field(default="", max_length=256, description="What the token is for.")
    user: str = Field(
        default="",
        max_length=63,
        description="Service user that it is for, by whoever may update that; empty = yourself.",
    )
    clusters: list[Label] = Field(
        default_factory=list, max_length=1000, description="Good for calls into these clusters only; empty = no limit."
    )
    projects: list[Label] = Field(
        default_factory=list,
        max_length=1000,
        description="Good for calls into these projects' namespaces only, with the roles held in them; empty = no such limit.",
    )
    read_only: bool = Field(default=False, description="True: the token only gets, lists and watches.")
    ttl_seconds: int | None = Field(
        default=None, ge=60, description="How long the token lives; cut to the allowed maximum."
    )


class TokenRequestStatus(Model):
    token: str = Field(default="", description="The token's text; shown here only.")
    name: str = Field(default="", description="Name of the Token: delete that to revoke it.")
    expires_at: Time | None = None


class TokenRequest(Resource):
    """An API token of the caller, with the caller's rights or fewer."""

    KIND: ClassVar[str] = "TokenRequest"
    spec: TokenRequestSpec = Field(default_factory=TokenRequestSpec)
    status: TokenRequestStatus = Field(default_factory=TokenRequestStatus)


class ClusterRegistrationSpec(Model):
    ttl_seconds: int = Field(
        default=3600, ge=60, le=7 * 86400, description="How long the registration token may be used."
    )


class ClusterRegistrationStatus(Model):
    token: str = Field(default="", description="One-time registration token; shown here only.")
    expires_at: Time | None = None
    manifest_url: str = Field(default="", alias="manifestURL", description="Where the import manifest is fetched.")
    command: str = Field(default="", description="What to run against the cluster that is to be imported.")


class ClusterRegistration(Resource):
    """A one-time registration token for a cluster, and how to bring the cluster in with it."""

    KIND: ClassVar[str] = "ClusterRegistration"
    spec: ClusterRegistrationSpec = Field(default_factory=ClusterRegistrationSpec)
    status: ClusterRegistrationStatus = Field(default_factory=ClusterRegistrationStatus)
