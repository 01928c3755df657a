"""`python -m services.identity --config FILE`."""

from __future__ import annotations

from libs.common.runtime import lean


def main() -> None:
    with lean.without(*lean.SERVICE):
        from libs.common.runtime.run import run
        from services.identity.config import IdentityConfig
        from services.identity.main import build
    run("identity", IdentityConfig, build)


if __name__ == "__main__":
    main()
