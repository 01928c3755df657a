"""`python -m services.authz --config FILE`."""

from libs.common.runtime import run
from services.authz.config import AuthzConfig
from services.authz.main import build

if __name__ == "__main__":
    run("authz", AuthzConfig, build)
