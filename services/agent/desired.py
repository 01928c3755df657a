"""What the cluster should hold, and that it does: fetched from the hub, kept, applied, enforced also while the hub is away.

It looks at the hub on notice, on reconnect and every five minutes; at the cluster every three, and at once at the parts that changed
in the hub or that somebody changed there. Here is when: `fetch` asks the hub, `wanted` says what an event means, `enforce` makes one round, and
`results` keeps each part's outcome, which is reported until the hub has taken it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import structlog

from libs.common import errors
from libs.common.bus.base import Bus
from libs.common.contracts.messages import AppliedReport, Empty, PartReport
from libs.common.contracts.methods import REPORT_APPLIED
from libs.common.kube.objects import Document, Ref, set_hash
from services.agent.apply import Applier
from services.agent.claims import CLAIM_KIND, CLAIM_VERSION, is_order
from services.agent.enforce import Enforcer
from services.agent.fetch import Fetched, fetch_parts, hash_of_parts
from services.agent.owned import BASE_KINDS, part_label
from services.agent.results import QUIET_S, Results, jittered
from services.agent.state import Kept, State
from services.agent.wanted import Wanted

POLL_S = 300.0
ENFORCE_S = 180.0
SPREAD_S = 1.0
"""After a reconnect an agent waits up to so long: a thousand do so at once."""
DRIFT_SETTLE_S = 0.2
"""Changes that come together, as those of one kubectl apply, are put right together."""
LOOK_AT_ALL_S = 1.0

DESIRED_CHANGED = "desired_changed"
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
        self._enforcer = Enforcer(applier)
        self._detach = detach
        self._monotonic = monotonic
        self._wake = asyncio.Event()
        self._pull_at = monotonic()
        self._enforce_at = monotonic()
        """When everything is looked at."""
        self.kinds_changed = asyncio.Event()
        self.trials_changed = asyncio.Event()
        self._wanted = Wanted(kept.parts)
        self._due: dict[str, float] = {}
        """Label value of a part → when it is looked at by itself."""
        self._moving: frozenset[str] = frozenset()
        """Label values of parts between which objects are not moved yet. Forgotten with the process: its first round looks at everything."""
        self._absent: frozenset[str] = frozenset()
        self._appeared: set[str] = set()
        """Namespaces that appeared since the last round began."""
        self._attempts = {"pull": 0, "enforce": 0, "report": 0}
        self._fetched = bool(kept.parts)
        self._pulled = False
        self._results = Results(monotonic)
        self._reports: list[PartReport] | None = None
        self._reported: list[PartReport] | None = None
        self._report_at = monotonic()
        self.applied: dict[str, str] = {}
        """Part name → hash, of the parts that the cluster has accepted completely; `applied_set` is the hash of all that."""
        self.applied_set = ""
        self.settled = asyncio.Event()
        """The hub was asked what should be since this process began, and the cluster was brought there."""

    def notice(self, hash_: str = "", spread_s: float = SPREAD_S) -> None:
        """The hub says that something changed, to this agent and to so many others that they should ask spread over `spread_s`."""
        if hash_ and hash_ == hash_of_parts(self._kept.parts):
            return
        self._soon("_pull_at", random.uniform(0, spread_s))

    def reconnected(self) -> None:
        """The bus is back: whatever was said meanwhile was missed, and the hub may have lost our report."""
        self._reported = None
        self._report_at = self._monotonic()
        self._soon("_pull_at", random.uniform(0, SPREAD_S))

    @property
    def kinds(self) -> frozenset[tuple[str, str]]:
        """(apiVersion, kind) of everything that may be ours in the cluster; `kinds_changed` is set when there are more."""
        # An agent that knew no claims has remembered them as a kind of object.
        return frozenset({*BASE_KINDS, *self._kept.kinds} - {(CLAIM_VERSION, CLAIM_KIND)})

    @property
    def parts(self) -> Mapping[str, tuple[str, Sequence[Document]]]:
        """The last fetched set."""
        return self._kept.parts

    def look_at_all(self) -> None:
        """Something may have been missed."""
        self._soon("_enforce_at", LOOK_AT_ALL_S)

    def tampered(self, label: str) -> None:
        """Somebody else changed an object of the part with this label value, or took it away: put it right.

        At once, but with growing pauses where it happens again and again: two who fight must not keep the API server busy.
        """
        pause = min(QUIET_S, DRIFT_SETTLE_S * 2.0 ** min(self._results.count_drifts(label), 10))
        self._due[label] = min(self._due.get(label, float("inf")), self._monotonic() + pause)
        self._wake.set()

    def is_as_it_should_be(self, ref: Ref, found: Document) -> bool:
        """Whether an object that a part wants is what the part wants."""
        return self._wanted.is_as_it_should_be(ref, found)

    def namespace_seen(self, found: Document) -> None:
        """A namespace is there, maybe since a moment ago, or its labels changed: whatever waits for it is applied now."""
        name = str((found.get("metadata") or {}).get("name") or "")
        for label in self._wanted.find_tampered(found):
            self.tampered(label)
        self._appeared.add(name)
        if name in self._absent:
            self._absent -= {name}
            self._look_at(self._wanted.parts_with(name))

    def namespace_vanished(self, name: str) -> None:
        """A namespace went with all that was in it: what is kept in it waits for another from now on."""
        self._look_at(self._wanted.parts_with(name))

    async def run(self) -> None:
        """Until detached."""
        while not self._is_detaching():
            if self._monotonic() >= self._pull_at:
                await self._try_pull()
                continue
            if self._monotonic() >= self._enforce_at:
                await self._try_enforce(None)
            elif due := {label for label, at in self._due.items() if self._monotonic() >= at}:
                await self._try_enforce(due)
            if self._reports is not None and self._reports != self._reported and self._monotonic() >= self._report_at:
                await self._try_report()
            await self._rest()
        await self._detach()

    # ── the hub ──

    async def pull(self) -> bool:
        """Fetch what differs. Returns whether anything changed. Raises the hub's errors; Unavailable for damaged content."""
        parts = await fetch_parts(self._bus, self._uid, self._kept.parts)
        if parts is not None:
            return await self._keep(parts)
        self._kept.detach = True
        await self._state.save_kept(self._kept)
        return True

    async def _keep(self, parts: Fetched) -> bool:
        if parts == self._kept.parts:
            return False
        applied = (o for _hash, objects in parts.values() for o in objects if not is_order(o))
        kinds = {*self._kept.kinds, *((str(o["apiVersion"]), str(o["kind"])) for o in applied)}
        changed = {
            name for name in parts.keys() | self._kept.parts.keys() if parts.get(name) != self._kept.parts.get(name)
        }
        self._kept.parts, self._kept.kinds = parts, sorted(kinds)
        self._wanted = Wanted(parts)
        self.kinds_changed.set()
        # Before anything is applied: kinds that are not remembered could never be found again.
        await self._state.save_kept(self._kept)
        self._look_at(part_label(name) for name in changed)
        log.info(
            DESIRED_CHANGED, parts={name: parts[name][0][:12] if name in parts else "" for name in sorted(changed)}
        )
        return True

    async def _try_pull(self) -> None:
        try:
            await self.pull()
        except errors.HerdsmanError as exc:
            self._pull_at = self._monotonic() + self._backoff("pull")
            if self._bus.connected:
                log.warning(DESIRED_FAILED, error=exc.message)
            return
        self._attempts["pull"] = 0
        self._pull_at = self._monotonic() + POLL_S * random.uniform(0.8, 1.2)
        if not self._fetched or not self._pulled:
            self._fetched = self._pulled = True
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

    async def enforce(self, only: AbstractSet[str] | None = None) -> list[PartReport]:
        """Bring the cluster to the last fetched set, or with `only` what belongs to the parts with these label values.

        Returns the outcome of all parts. Raises Unavailable, Timeout, Unauthenticated when its API server can't be worked with.
        """
        parts = self._kept.parts
        self._appeared.clear()
        if only is not None:
            only = only | self._moving
        for label in list(self._due) if only is None else only:
            self._due.pop(label, None)
        made = await self._enforcer.run(parts, self.kinds, only, self._is_awaited)
        self._moving = made.moving
        if made.is_cut:
            self._look_at(made.moving)
        for label, after_s in self._results.take_in(made, parts, only).items():
            self._due[label] = self._monotonic() + after_s
        self._absent = made.absent if only is None else self._absent | made.absent
        if made.concerns_all:
            self.look_at_all()
        for name in self._absent & self._appeared:
            # It came while this round found it absent.
            self._look_at(self._wanted.parts_with(name))
        self.applied = self._results.applied
        self.applied_set = set_hash(self.applied)
        self.trials_changed.set()
        return self._results.reports

    def _is_awaited(self) -> bool:
        """Whether there is something to do that does not wait for objects to be moved from part to part."""
        return min(self._pull_at, *self._due.values(), self._enforce_at) <= self._monotonic()

    async def _try_enforce(self, only: AbstractSet[str] | None) -> None:
        if not self._fetched:
            # Nothing was ever fetched: no set is not the same as an empty one, which would take everybody's rights away.
            self._enforce_at = self._monotonic() + ENFORCE_S
            return
        try:
            self._reports = await self.enforce(only)
        except errors.HerdsmanError as exc:
            self._enforce_at = self._monotonic() + self._backoff("enforce")
            log.warning(APPLY_FAILED, error=exc.message)
            return
        self._attempts["enforce"] = 0
        if self._pulled:
            self.settled.set()
        if only is None:
            self._enforce_at = self._monotonic() + ENFORCE_S * random.uniform(0.8, 1.2)
        if any(report.error for report in self._reports):
            log.warning(APPLY_FAILED, parts={r.name: r.error for r in self._reports if r.error})

    # ── time ──

    def _is_detaching(self) -> bool:
        return self._kept.detach

    async def _rest(self) -> None:
        due = min(self._pull_at, self._enforce_at, *self._due.values())
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

    def _look_at(self, labels: Iterable[str]) -> None:
        """Have these parts looked at now."""
        for label in labels:
            self._due[label] = self._monotonic()
        self._wake.set()

    def _backoff(self, what: str) -> float:
        self._attempts[what] += 1
        return jittered(self._attempts[what])
