"""`python -m services.cluster_controller --config FILE`."""

from __future__ import annotations

from libs.common.runtime import lean


def main() -> None:
    with lean.without(*lean.SERVICE):
        from libs.common.runtime.run import run
        from services.cluster_controller.config import ClusterControllerConfig
        from services.cluster_controller.main import build
    run("cluster_controller", ClusterControllerConfig, build)


if __name__ == "__main__":
    main()
