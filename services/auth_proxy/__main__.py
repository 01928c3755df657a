"""`python -m services.auth_proxy --config FILE`: the parent of the worker processes, or one of them when it was given sockets."""

from __future__ import annotations

import sys

from services.auth_proxy import inherited


def main() -> None:
    if not inherited.is_worker():
        from services.auth_proxy.workers import main as run_workers

        sys.exit(run_workers())
    from libs.common.runtime import lean

    with lean.without(*lean.SERVICE):
        from libs.common.runtime.run import run
        from services.auth_proxy.config import AuthProxyConfig
        from services.auth_proxy.main import build
    run("auth_proxy", AuthProxyConfig, build)


if __name__ == "__main__":
    main()
