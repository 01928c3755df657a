"""`python -m services.node_registry --config FILE`."""

from __future__ import annotations

from libs.common.runtime import lean


def main() -> None:
    with lean.without(*lean.SERVICE):
        from libs.common.runtime.run import run
        from services.node_registry.config import NodeRegistryConfig
        from services.node_registry.main import build
    run("node_registry", NodeRegistryConfig, build)


if __name__ == "__main__":
    main()
