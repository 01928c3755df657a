"""`python -m services.gateway --config FILE`."""

from __future__ import annotations

from libs.common.runtime import run
from services.gateway.config import GatewayConfig
from services.gateway.main import build

if __name__ == "__main__":
    run("gateway", GatewayConfig, build)
