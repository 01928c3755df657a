"""What the cluster should hold, and that it does: fetched from the hub, kept, applied, enforced also while the hub is away.

It looks at the hub on notice, on reconnect and every five minutes; at the cluster after each change and every three.
`diff` says what to do, `apply` does it, and each part's outcome is reported until the hub has taken the report.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts.messages import AppliedReport, DesiredQuery, DesiredSet, Empty, PartReport
from libs.common.contracts.methods import GET_DESIRED, REPORT_APPLIED
from libs.common.kube.objects import Document, content_hash, labels_of, set_hash
from services.agent.apply import Applier
from services.agent.diff import diff_parts
from services.agent.owned import AGENT_PART, BASE_KINDS, PART, part_label
from services.agent.state import Kept, State

POLL_S = 300.0
ENFORCE_S = 180.0
NOTICE_SPREAD_S = 1.0
"""After a notice an agent waits up to so long: a changed role calls a thousand agents at once."""
MAX_FETCHES = 100
_BACKOFF_S = (1.0, 120.0)
_MAX_ERROR = 1000

DESIRED_CHANGED = "desired_changed"
DESIRED_APPLIED = "desired_applied"
DESIRED_FAILED = "desired_fetch_failed"
APPLY_FAILED = "apply_failed"
REPORT_FAILED = "report_failed"
log = structlog.get_logger(__name__)

Sleep = Callable[[float], Awaitable[None]]


class DesiredKeeper:
    """One round at a time. `detach` is called, once, when the hub says that the cluster is deleted; `run` ends after it."""

    def __init__(
        self, bus: Bus, cluster_uid: str, state: State, kept: Kept, applier: Applier, detach: Callable[[], Awaitable[None]],
        *, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._bus = bus
        self._uid = cluster_uid
        self._state = state
        self._kept = kept
        self._applier = applier
        self._detach = detach
        self._monotonic = monotonic
        self._wake = asyncio.Event()
        self._pull_at = monotonic()
        self._enforce_at = monotonic()
        self._absent: frozenset[str] = frozenset()
        self._appeared: set[str] = set()
        """Namespaces that appeared since the last round began."""
        self._attempts = {"pull": 0, "enforce": 0, "report": 0}
        self._again = False
        self._fetched = bool(kept.parts)
        self._reports: list[PartReport] | None = None
        self._reported: list[PartReport] | None = None
        self._report_at = monotonic()
        self.applied: dict[str, str] = {}
        """Part name → hash, of the parts that the cluster has accepted completely."""

    def notice(self, hash_: str = "") -> None:
        """The hub says that something changed."""
        if hash_ and hash_ == self._hash():
            return
        self._soon("_pull_at", random.uniform(0, NOTICE_SPREAD_S))

    def reconnected(self) -> None:
        """The bus is back: whatever was said meanwhile was missed, and the hub may have lost our report."""
        self._reported = None
        self._report_at = self._monotonic()
        self._soon("_pull_at", random.uniform(0, NOTICE_SPREAD_S))

    def namespace_appeared(self, name: str) -> None:
        """A namespace is there, maybe since a moment ago: whatever waits for it is applied now."""
        self._appeared.add(name)
        if name in self._absent:
            self._absent -= {name}
            self._soon("_enforce_at", 0.0)

    def namespace_vanished(self, name: str) -> None:
        """A namespace went with all that was in it: what is kept in it waits for another from now on."""
        objects = (o for _hash, part in self._kept.parts.values() for o in part)
        if any(isinstance(m := o.get("metadata"), Mapping) and m.get("namespace") == name for o in objects):
            self._soon("_enforce_at", 0.0)

    async def run(self) -> None:
        """Until detached."""
        while not self._is_detaching():
            if self._monotonic() >= self._pull_at:
                await self._try_pull()
                continue
            if self._monotonic() >= self._enforce_at:
                await self._try_enforce()
            if self._reports is not None and self._reports != self._reported and self._monotonic() >= self._report_at:
                await self._try_report()
            await self._rest()
        await self._detach()

    # ── the hub ──

    async def pull(self) -> bool:
        """Fetch what differs. Returns whether anything changed. Raises the hub's errors; Unavailable for damaged content."""
        parts = dict(self._kept.parts)
        for _ in range(MAX_FETCHES):
            have = {name: hash_ for name, (hash_, _objects) in parts.items()}
            answer = await self._bus.request(
                GET_DESIRED.agent_subject(self._uid), DesiredQuery(have=have), DesiredSet, timeout_s=15
            )
            if answer.detach:
                self._kept.detach = True
                await self._state.save_kept(self._kept)
                return True
            for part in answer.parts:
                if content_hash(part.objects) != part.hash:
                    raise errors.Unavailable(
                        f'part "{part.name}" of the desired set arrived damaged: its hash is wrong'
                    )
                parts[part.name] = (part.hash, part.objects)
            parts = {name: part for name, part in parts.items() if name in answer.names}
            if set_hash({name: hash_ for name, (hash_, _objects) in parts.items()}) == answer.hash:
                return await self._keep(parts)
            if not answer.parts:
                raise errors.Unavailable("the hub's desired set does not add up: it will be asked again")
        raise errors.Unavailable("the hub's desired set changes faster than it can be fetched")

    async def _keep(self, parts: dict[str, tuple[str, list[dict[str, object]]]]) -> bool:
        if parts == self._kept.parts:
            return False
        kinds = {
            *self._kept.kinds,
            *((str(o["apiVersion"]), str(o["kind"])) for _hash, objects in parts.values() for o in objects),
        }
        self._kept.parts, self._kept.kinds = parts, sorted(kinds)
        # Before anything is applied: kinds that are not remembered could never be found again.
        await self._state.save_kept(self._kept)
        log.info(DESIRED_CHANGED, parts={name: hash_[:12] for name, (hash_, _objects) in parts.items()})
        return True

    async def _try_pull(self) -> None:
        try:
            changed = await self.pull()
        except errors.HerdsmanError as exc:
            self._pull_at = self._monotonic() + self._backoff("pull")
            if self._bus.connected:
                log.warning(DESIRED_FAILED, error=exc.message)
            return
        self._attempts["pull"] = 0
        self._pull_at = self._monotonic() + POLL_S * random.uniform(0.8, 1.2)
        if changed or not self._fetched:
            self._fetched = True
            self._enforce_at = self._monotonic()

    async def _try_report(self) -> None:
        reports = self._reports
        assert reports is not None
        try:
            await self._bus.request(
                REPORT_APPLIED.agent_subject(self._uid), AppliedReport(parts=reports), Empty, timeout_s=10
            )
        except errors.HerdsmanError as exc:
            self._report_at = self._monotonic() + self._backoff("report")
            if self._bus.connected:
                log.warning(REPORT_FAILED, error=exc.message)
            return
        self._attempts["report"] = 0
        self._reported = reports

    # ── the cluster ──

    async def enforce(self) -> list[PartReport]:
        """Bring the cluster to the last fetched set. Raises Unavailable, Timeout, Unauthenticated when its API server can't be worked with."""
        parts = self._kept.parts
        self._appeared.clear()
        actual = await self._applier.observe_owned({*BASE_KINDS, *self._kept.kinds})
        mine = {ref: found for ref, found in actual.items() if labels_of(found).get(PART) != AGENT_PART}
        desired: Mapping[str, list[Document]] = {name: list(objects) for name, (_hash, objects) in parts.items()}
        steps = diff_parts(desired, mine)
        outcome = await self._applier.take(steps)
        self._absent = frozenset(outcome.absent)
        self._again = bool(self._absent & self._appeared)
        reports: list[PartReport] = []
        for name, (hash_, objects) in sorted(parts.items()):
            failures = outcome.failures.pop(part_label(name), [])
            reports.append(
                PartReport(name=name, hash=hash_, objects=len(objects), error="; ".join(failures)[:_MAX_ERROR])
            )
        for label, failures in sorted(outcome.failures.items()):
            # Leftovers of parts that are no more and can't be removed: the hub should know them too.
            reports.append(PartReport(name=label, hash="", error="; ".join(failures)[:_MAX_ERROR]))
        self.applied = {report.name: report.hash for report in reports if not report.error}
        if outcome.writes:
            log.info(DESIRED_APPLIED, writes=outcome.writes, failures=sum(1 for r in reports if r.error))
        return reports

    async def _try_enforce(self) -> None:
        if not self._fetched:
            # Nothing was ever fetched: no set is not the same as an empty one, which would take everybody's rights away.
            self._enforce_at = self._monotonic() + ENFORCE_S
            return
        try:
            self._reports = await self.enforce()
        except errors.HerdsmanError as exc:
            self._enforce_at = self._monotonic() + self._backoff("enforce")
            log.warning(APPLY_FAILED, error=exc.message)
            return
        if self._again:
            # A namespace came while this round found it absent.
            self._enforce_at = self._monotonic()
            return
        failed = any(report.error for report in self._reports)
        if failed:
            self._enforce_at = self._monotonic() + max(5.0, self._backoff("enforce"))
            log.warning(APPLY_FAILED, parts={r.name: r.error for r in self._reports if r.error})
        else:
            self._attempts["enforce"] = 0
            self._enforce_at = self._monotonic() + ENFORCE_S * random.uniform(0.8, 1.2)

    # ── time ──

    def _is_detaching(self) -> bool:
        return self._kept.detach

    async def _rest(self) -> None:
        due = min(self._pull_at, self._enforce_at)
        if self._reports is not None and self._reports != self._reported:
            due = min(due, self._report_at)
        self._wake.clear()
        try:
            async with asyncio.timeout(max(0.0, due - self._monotonic())):
                await self._wake.wait()
        except TimeoutError:
            return

    def _soon(self, what: str, after_s: float) -> None:
        setattr(self, what, min(getattr(self, what), self._monotonic() + after_s))
        self._wake.set()

    def _backoff(self, what: str) -> float:
        self._attempts[what] += 1
        low, high = _BACKOFF_S
        return random.uniform(low / 2, min(high, low * 2.0 ** min(self._attempts[what], 10)))

    def _hash(self) -> str:
        return set_hash({name: hash_ for name, (hash_, _objects) in self._kept.parts.items()})
