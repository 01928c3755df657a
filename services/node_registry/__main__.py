"""`python -m services.node_registry --config FILE`."""

from libs.common.runtime import run
from services.node_registry.config import NodeRegistryConfig
from services.node_registry.main import build

if __name__ == "__main__":
    run("node_registry", NodeRegistryConfig, build)
