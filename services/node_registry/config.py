"""Settings of the node registry."""

from __future__ import annotations

from pydantic import Field

from libs.common.runtime.config import ServiceConfig


class NodeRegistryConfig(ServiceConfig):
    workers: int = Field(default=8, gt=0, description="Clusters whose observations are written at the same time.")
