"""The gateway's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from libs.common.runtime.config import ServiceConfig
from libs.common.version import VERSION


class GatewayConfig(ServiceConfig):
    """Exactly one of `socket` and `listen`. The signed envelope is the only thing that is trusted, on either."""

    socket: Path | None = Field(
        default=None, description="Unix socket to listen on: for a front door on the same machine."
    )
    listen: str = Field(
        default="", description="host:port to listen on, where the front door is elsewhere; port 0 = any free one."
    )
    listen_file: Path | None = Field(default=None, description="Where the chosen address is written, for port 0.")
    public_url: str = Field(
        description="The hub's public address, https://HOST[:PORT]: goes into kubeconfigs and import manifests."
    )
    public_ca_file: Path | None = Field(
        default=None, description="PEM file of the CA that clients need to trust the hub; none = a public one."
    )
    agent_image: str = Field(
        default=f"herdsman.dev/agent:{VERSION}", description="Container image of the agent in import manifests."
    )
    login_per_minute: int = Field(
        default=10, gt=0, description="Sign-in attempts per address and user name; more are answered 429."
    )
    requests_per_minute: int = Field(
        default=120,
        gt=0,
        description="Calls of public routes (sign-in, registration, manifests) per address; more are answered 429.",
    )
