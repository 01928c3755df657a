"""Settings of the identity service."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from libs.common.runtime.config import ServiceConfig
from services.identity.tokens import Lifetimes


class BootstrapAdmin(BaseModel):
    """The first user of a new hub. There is no default password."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = Field(description="Name of the user that is made when the hub has never had one.")
    password_file: Path = Field(description="File whose first line is the password; read only when the user is made.")
    must_change: bool = Field(
        default=True,
        description="Whether that password has to be changed before anything else. False where nobody but the administrator can read the file.",
    )


class IdentityConfig(ServiceConfig):
    bootstrap_admin: BootstrapAdmin | None = Field(default=None, description="Absent: no user is ever made by itself.")
    login_ttl_s: int = Field(
        default=16 * 3600, gt=0, description="Life of a sign-in: a working day, gone the next morning."
    )
    session_ttl_s: int = Field(default=12 * 3600, gt=0, description="Life of a browser's session, used or not.")
    session_idle_s: int = Field(
        default=2 * 3600, gt=0, description="A browser's session that is not used for so long ends."
    )
    kubeconfig_ttl_s: int = Field(default=30 * 86400, gt=0, description="Longest life of a token in a kubeconfig file.")
    api_ttl_s: int = Field(default=90 * 86400, gt=0, description="Longest life of an API token.")
    secrets_keys: Path = Field(
        description="File with the keys that seal provider secrets and seeds in the store, one a line: id, 32 bytes in base64."
    )
    tokens_per_user: int = Field(default=100, gt=0, description="Live tokens that one user may have.")

    @property
    def lifetimes(self) -> Lifetimes:
        return Lifetimes(
            login_s=self.login_ttl_s, kubeconfig_s=self.kubeconfig_ttl_s, api_s=self.api_ttl_s, session_s=self.session_ttl_s,
            session_idle_s=self.session_idle_s,
        )  # fmt: skip
