"""Watches what the desired set depends on, so that it is enforced when that changes and not minutes later. `desired` does the work."""

from __future__ import annotations

from libs.common.kube.client import KubeClient
from libs.common.kube.reflector import Changed, Deleted, Listed, Reflector
from services.agent.desired import DesiredKeeper


class Guard:
    """Namespaces that come and go. One watch, metadata alone."""

    def __init__(self, client: KubeClient, desired: DesiredKeeper) -> None:
        self._namespaces = Reflector(client, "/api/v1/namespaces", metadata_only=True)
        self._desired = desired

    async def run(self) -> None:
        """For ever."""
        async for seen in self._namespaces.run():
            if isinstance(seen, Listed):
                for item in seen.items:
                    self._desired.namespace_appeared(str(item["metadata"]["name"]))
            elif isinstance(seen, Changed):
                self._desired.namespace_appeared(str(seen.object["metadata"]["name"]))
            elif isinstance(seen, Deleted):
                self._desired.namespace_vanished(str(seen.object["metadata"]["name"]))
