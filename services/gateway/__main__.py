"""`python -m services.gateway --config FILE`."""

from __future__ import annotations

from libs.common.runtime import lean


def main() -> None:
    with lean.without(*lean.TERMINAL), lean.without_system_trust():  # it serves HTTP itself, with aiohttp
        from libs.common.runtime.run import run
        from services.gateway.config import GatewayConfig
        from services.gateway.main import build
    run("gateway", GatewayConfig, build)


if __name__ == "__main__":
    main()
