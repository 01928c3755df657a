"""When a cluster works: a pod could be created in it, and in a full one would run.

Called by `run` after every process has started.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from integration.kubelab import pki
from integration.kubelab.components import Probe, Settings
from integration.kubelab.probe import Prober
from libs.common.errors import Timeout

WORKING_TIMEOUT_S = 90.0


async def wait_working(settings: Settings, begun: datetime) -> None:
    """Returns when the default service account is there and the node, if any, is Ready since `begun`.

    Pods of an earlier run are started again by the kubelet a moment later, as after a reboot; until then the API server
    shows them as they were.
    """
    api = Prober(Probe(f"{settings.server}/readyz", pki.CLUSTER_CA, "admin"), settings.layout.pki)
    conditions: list[tuple[str, Callable[[], Awaitable[bool]]]] = []
    if not settings.minimal:
        conditions.append(("the default service account", lambda: _has_service_account(api)))
    if settings.full:
        name = settings.layout.name
        conditions.append((f'node "{name}"', lambda: _is_node_ready(api, name, begun)))
    deadline = time.monotonic() + WORKING_TIMEOUT_S
    for what, holds in conditions:
        while not await holds():
            if time.monotonic() > deadline:
                raise Timeout(
                    f"{what} was not ready within {WORKING_TIMEOUT_S:.0f} s; see the logs in {settings.layout.logs}"
                )
            await asyncio.sleep(0.1)


async def _has_service_account(api: Prober) -> bool:
    return await _read(api, "/api/v1/namespaces/default/serviceaccounts/default") is not None


async def _is_node_ready(api: Prober, name: str, begun: datetime) -> bool:
    """Ready, and said so by the present kubelet.

    The API server keeps what a node said before it was killed. A node that registered just now can't have been killed;
    any other proves itself by its lease, which a new node, though, gets only after ten seconds.
    """
    node = await _read(api, f"/api/v1/nodes/{name}")
    if node is None or not any(
        c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", [])
    ):
        return False
    if datetime.fromisoformat(node["metadata"]["creationTimestamp"]) >= begun.replace(microsecond=0):
        return True
    lease = await _read(api, f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")
    return lease is not None and datetime.fromisoformat(lease["spec"]["renewTime"]) > begun


async def _read(api: Prober, path: str) -> dict[str, Any] | None:
    answer = await api.get(path)
    if answer is None or answer[0] != 200:
        return None
    document: dict[str, Any] = json.loads(answer[1])
    return document
