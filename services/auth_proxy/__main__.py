"""`python -m services.auth_proxy --config FILE`."""

from __future__ import annotations

from libs.common.runtime import lean


def main() -> None:
    with lean.without(*lean.SERVICE):
        from libs.common.runtime.run import run
        from services.auth_proxy.config import AuthProxyConfig
        from services.auth_proxy.main import build
    run("auth_proxy", AuthProxyConfig, build)


if __name__ == "__main__":
    main()
