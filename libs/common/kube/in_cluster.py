"""The endpoint of a pod: its own cluster, by the service account that kubelet mounted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from libs.common import errors
from libs.common.kube.credential import TokenFile
from libs.common.kube.endpoint import Endpoint

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def is_in_cluster(environment: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT) -> bool:
    """Whether this process runs in a pod with a service account."""
    return bool(environment.get("KUBERNETES_SERVICE_HOST")) and (directory / "token").exists()


def load_in_cluster(environment: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT) -> Endpoint:
    """The endpoint of the cluster that this pod runs in. Raises Invalid outside of a pod."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise errors.Invalid("this process does not run in a pod: give a kubeconfig")
    try:
        ca = (directory / "ca.crt").read_text()
        namespace = (directory / "namespace").read_text().strip()
    except OSError as exc:
        raise errors.Invalid(f"the pod has no usable service account in {directory}: {exc.strerror}") from exc
    address = f"[{host}]" if ":" in host else host
    return Endpoint(f"https://{address}:{port}", ca=ca, credential=TokenFile(directory / "token"), namespace=namespace)
