"""The service's own settings, beside those that every service has."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from libs.common.runtime.config import ServiceConfig


class ClusterControllerConfig(ServiceConfig):
    agents_account: str = Field(description="Public NKEY of the AGENTS account.")
    agents_signing_seed_file: Path = Field(
        description="Seed of the account's scoped signing key: makes agents' JWTs and nothing else."
    )
    platform_account: str = Field(default="", description="Public NKEY of the PLATFORM account; for revocation.")
    operator_seed_file: Path | None = Field(
        default=None, description="Seed of the operator, which signs the list of revoked agents."
    )
    system_creds: Path | None = Field(
        default=None, description="Credential file of the SYS user that pushes the list to the servers."
    )
    agent_jwt_ttl_s: int = Field(
        default=7 * 86_400, ge=600, le=30 * 86_400,
        description="Life of an agent's JWT; renewed after two thirds. An agent that cannot renew for the last third must be registered again, "
        "so this is how long a hub may be away; a revocation does not wait for it.",
    )  # fmt: skip
