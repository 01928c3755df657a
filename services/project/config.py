"""Settings of the project service."""

from __future__ import annotations

from libs.common.runtime.config import ServiceConfig


class ProjectConfig(ServiceConfig):
    """Nothing of its own yet."""
