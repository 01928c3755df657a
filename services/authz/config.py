"""Settings of the authz service."""

from __future__ import annotations

from pydantic import Field

from libs.common.runtime.config import ServiceConfig


class AuthzConfig(ServiceConfig):
    bootstrap_admin_user: str = Field(
        default="", description="User that becomes the first admin of a hub that never had one; empty: nobody does."
    )
