"""The sign of life: every ten seconds, and at once when something in it changes that a person would want to know."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts import subjects
from libs.common.contracts.messages import Heartbeat
from libs.common.kube.client import KubeClient
from libs.common.policies.names import NO_REVIEW
from libs.common.version import VERSION

EVERY_S = 10.0
LOOK_EVERY_S = 1.0
PROBE_EVERY_S = 10.0
PROBE_TIMEOUT_S = 5.0
VERSION_EVERY_S = 300.0
API_SERVER_UNHEALTHY = "api_server_unhealthy"
NAME_UNKNOWN = "agent_name_unknown"
API_SERVER_RECOVERED = "api_server_recovered"
log = structlog.get_logger(__name__)


class ApiServerProbe:
    """Asks /readyz every ten seconds and /version now and then, and at once when the API server is back: it may be a newer one."""

    def __init__(self, client: KubeClient, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._version_at = float("-inf")
        self.healthy = False
        self.message = "not asked yet"
        self.version = ""
        self.username = ""
        """Whom the API server takes us for."""

    async def run(self) -> None:
        while True:
            await self.probe()
            await asyncio.sleep(PROBE_EVERY_S * random.uniform(0.9, 1.1))

    async def probe(self) -> None:
        """Ask once. Never raises: what is wrong is what is told."""
        before = self.healthy
        try:
            await self._client.get_text("/readyz", timeout_s=PROBE_TIMEOUT_S)
            if not before or self._monotonic() - self._version_at > VERSION_EVERY_S:
                self.version = str(
                    (await self._client.get("/version", timeout_s=PROBE_TIMEOUT_S)).get("gitVersion") or ""
                )[:64]
                await self._ask_who()
                self._version_at = self._monotonic()
            self.healthy, self.message = True, ""
        except errors.HerdsmanError as exc:
            if before or self.message == "not asked yet":
                log.warning(API_SERVER_UNHEALTHY, error=exc.message)
            self.healthy, self.message = False, exc.message[:512]
        if self.healthy and not before:
            log.info(API_SERVER_RECOVERED, version=self.version)

    async def _ask_who(self) -> None:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            answer = await self._client.create(
                "/apis/authentication.k8s.io/v1/selfsubjectreviews", review, timeout_s=PROBE_TIMEOUT_S
            )
            self.username = str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or "")[:512]
        except errors.NotFound:
            self.username = NO_REVIEW
        except errors.Denied as exc:
            # No sign of ill health: what waits for the name says that it does.
            log.warning(NAME_UNKNOWN, error=exc.message)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures come from; each is asked, none waits."""

    probe: ApiServerProbe
    node_count: Callable[[], int | None]
    tunnels: Callable[[], int]
    applied_set: Callable[[], str]
    trusted_ca: Callable[[], str] = lambda: ""
    carrier: Callable[[], str] = lambda: ""


class HeartbeatSender:
    """Runs beside everything else, so that a busy agent is not taken for a dead one."""

    def __init__(
        self, bus: Bus, cluster_uid: str, sources: Sources, on_turn: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._bus = bus
        self._subject = subjects.heartbeat(cluster_uid)
        self._sources = sources
        self._on_turn = on_turn
        self._monotonic = monotonic
        self._sent: Heartbeat | None = None
        self._next = 0.0

    def reconnected(self) -> None:
        """The bus is back: say so at once."""
        self._sent = None

    async def run(self) -> None:
        while True:
            await self.beat()
            self._on_turn()
            await asyncio.sleep(LOOK_EVERY_S)

    async def beat(self) -> bool:
        """Send if it is time or something changed. Returns whether it did."""
        current = self.compose()
        due = self._sent is None or self._monotonic() >= self._next or _is_news(self._sent, current)
        if not due or not self._bus.connected:
            return False
        try:
            await self._bus.publish(self._subject, current)
        except errors.HerdsmanError:
            return False  # the bus says so itself, and the next look is a second away
        self._sent = current
        self._next = self._monotonic() + EVERY_S * random.uniform(0.9, 1.1)
        return True

    def compose(self) -> Heartbeat:
        s = self._sources
        return Heartbeat(
            agent_version=VERSION, kubernetes_version=s.probe.version, username=s.probe.username, api_server_healthy=s.probe.healthy,
            api_server_message=s.probe.message, node_count=s.node_count(), tunnels=s.tunnels(), applied_set=s.applied_set(),
            trusted_ca=s.trusted_ca(), carrier=s.carrier(),
        )  # fmt: skip


def _is_news(sent: Heartbeat, current: Heartbeat) -> bool:
    """Whether a change is worth a message of its own: the number of tunnels changes with every call, that there are none matters."""
    same = {"tunnels": bool(sent.tunnels)} == {"tunnels": bool(current.tunnels)}
    return not same or sent.model_copy(update={"tunnels": 0}) != current.model_copy(update={"tunnels": 0})
