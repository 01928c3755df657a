"""What all handlers of the gateway share: grants, caches, bus, clocks. Made once in `main.build`, given to each handler class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from libs.common.access.live import HasGrants
from libs.common.apiserver.watch import WatchCache
from libs.common.bus.base import Bus
from libs.common.crypto.envelope import Verifier
from libs.common.recording.log import RecordingLog
from libs.common.resources import codec
from libs.common.resources.meta import check_name
from libs.common.resources.registry import ResourceType
from libs.common.store.base import Store
from services.gateway.config import GatewayConfig
from services.gateway.token_feed import TokenFeed
from services.gateway.token_reader import TokenReader


@dataclass(slots=True)
class State:
    """`caches` by plural, one for each kind in the registry, that of tokens over `feed`, which has no copy: `tokens` reads them; `ca` is the PEM text that clients of the hub must trust, or empty.

    Nothing but `ca` changes: it follows its file, because the hub's authority may be replaced while it runs.
    """

    config: GatewayConfig
    bus: Bus
    verifier: Verifier
    grants: HasGrants
    caches: Mapping[str, WatchCache]
    feed: TokenFeed
    tokens: TokenReader
    nodes: Store
    """The bucket of nodes, for what is read in it on demand."""
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    waiting_for: Callable[[], list[str]]
    ca: str = ""
    recordings: RecordingLog | None = None
    """Where recorded sessions lie; None = in JetStream, by `bus`."""

    async def find(self, rtype: ResourceType, name: str) -> dict[str, Any] | None:
        """The object as this process has it, a token as the store has it; None when there is none of this name."""
        if rtype.plural == "tokens":
            return await self.tokens.document(name)
        try:
            check_name(name)
        except ValueError:
            return None
        entry = self.caches[rtype.plural].informer.get(rtype.key(name))
        return None if entry is None else codec.decode_document(entry.value, entry.revision)

    def wake_streams(self) -> None:
        """Let every open watch look at its caller's standing again."""
        for cache in self.caches.values():
            cache.wake()
