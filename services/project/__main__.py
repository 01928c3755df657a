"""`python -m services.project --config FILE`."""

from libs.common.runtime import run
from services.project.config import ProjectConfig
from services.project.main import build

if __name__ == "__main__":
    run("project", ProjectConfig, build)
