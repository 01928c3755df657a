"""`python -m services.authz --config FILE`."""

from __future__ import annotations

from libs.common.runtime import lean


def main() -> None:
    with lean.without(*lean.SERVICE):
        from libs.common.runtime.run import run
        from services.authz.config import AuthzConfig
        from services.authz.main import build
    run("authz", AuthzConfig, build)


if __name__ == "__main__":
    main()
