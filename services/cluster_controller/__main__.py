"""`python -m services.cluster_controller --config FILE`"""

from libs.common.runtime import run
from services.cluster_controller.config import ClusterControllerConfig
from services.cluster_controller.main import build

run("cluster_controller", ClusterControllerConfig, build)
