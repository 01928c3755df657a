"""What all handlers of the gateway share: grants, caches, bus, clocks. Made once in `main.build`, given to each handler class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from libs.common.access.live import HasGrants
from libs.common.apiserver.watch import WatchCache
from libs.common.bus.base import Bus
from libs.common.crypto.envelope import Verifier
from libs.common.recording.log import RecordingLog
from services.gateway.config import GatewayConfig


@dataclass(slots=True)
class State:
    """`caches` by plural, one for each kind in the registry; `ca` is the PEM text that clients of the hub must trust, or empty.

    Nothing but `ca` changes: it follows its file, because the hub's authority may be replaced while it runs.
    """

    config: GatewayConfig
    bus: Bus
    verifier: Verifier
    grants: HasGrants
    caches: Mapping[str, WatchCache]
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    waiting_for: Callable[[], list[str]]
    ca: str = ""
    recordings: RecordingLog | None = None
    """Where recorded sessions lie; None = in JetStream, by `bus`."""

    def wake_streams(self) -> None:
        """Let every open watch look at its caller's standing again."""
        for cache in self.caches.values():
            cache.wake()
