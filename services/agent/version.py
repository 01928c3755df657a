"""The version that the agent tells the hub: that of the installed distribution.

Not `libs.common.runtime.version`, whose package brings in all that a hub service needs; pydantic has loaded this module already.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def agent_version() -> str:
    try:
        return metadata.version("herdsman")
    except metadata.PackageNotFoundError:
        return "0+unknown"
