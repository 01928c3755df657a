"""`python -m services.project --config FILE`."""

from __future__ import annotations

from libs.common.runtime import lean


def main() -> None:
    with lean.without(*lean.SERVICE):
        from libs.common.runtime.run import run
        from services.project.config import ProjectConfig
        from services.project.main import build
    run("project", ProjectConfig, build)


if __name__ == "__main__":
    main()
