"""`python -m services.identity --config FILE`."""

from libs.common.runtime import run
from services.identity.config import IdentityConfig
from services.identity.main import build

if __name__ == "__main__":
    run("identity", IdentityConfig, build)
