"""What the cluster should hold, and that it does: fetched from the hub, kept, applied, enforced also while the hub is away.

It looks at the hub on notice, on reconnect and every five minutes; at the cluster every three, and at once at the parts that changed
in the hub or that somebody changed there. `enforce` makes one round, and each part's outcome is reported until the hub has taken it.
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
from libs.common.contracts.messages import AppliedReport, DesiredQuery, DesiredSet, Empty, PartReport
from libs.common.contracts.methods import GET_DESIRED, REPORT_APPLIED
from libs.common.kube.objects import Document, Ref, content_hash, labels_of, ref_of, set_hash
from services.agent.apply import Applier
from services.agent.claims import (
    CLAIM_KIND,
    CLAIM_VERSION,
    PROJECT,
    Claim,
    find_marks,
    is_adorned,
    is_claim,
    is_order,
    parse_claim,
)
from services.agent.diff import is_met
from services.agent.enforce import Enforcer, all_claims
from services.agent.owned import BASE_KINDS, mark, part_label
from services.agent.pod_security import Orders, plan_levels, read_orders, with_level
from services.agent.state import Kept, State

POLL_S = 300.0
ENFORCE_S = 180.0
SPREAD_S = 1.0
"""After a reconnect an agent waits up to so long: a thousand do so at once."""
MAX_FETCHES = 100
DRIFT_SETTLE_S = 0.2
"""Changes that come together, as those of one kubectl apply, are put right together."""
QUIET_S = 60.0
"""After so long without a change by others, the next one is put right at once again; and no pause is longer."""
LOOK_AT_ALL_S = 1.0
RETRY_S = 5.0
"""A part that failed is tried again after this long at least."""
_BACKOFF_S = (1.0, 120.0)
_MAX_ERROR = 1000

DESIRED_CHANGED = "desired_changed"
DESIRED_FAILED = "desired_fetch_failed"
APPLY_FAILED = "apply_failed"
DRIFT_REPAIRED = "drift_repaired"
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
        self._claims: dict[str, Claim] = {}
        self._orders: Orders = ()
        self._drifts: dict[str, tuple[int, float]] = {}
        """Label value of a part → how often it was put right in a row, and when last."""
        self._due: dict[str, float] = {}
        """Label value of a part → when it is looked at by itself."""
        self._moving: frozenset[str] = frozenset()
        """Label values of parts between which objects are not moved yet. Forgotten with the process: its first round looks at everything."""
        self._failures: dict[str, int] = {}
        self._absent: frozenset[str] = frozenset()
        self._appeared: set[str] = set()
        """Namespaces that appeared since the last round began."""
        self._attempts = {"pull": 0, "enforce": 0, "report": 0}
        self._fetched = bool(kept.parts)
        self._pulled = False
        self._results: dict[str, PartReport] = {}
        self._reports: list[PartReport] | None = None
        self._reported: list[PartReport] | None = None
        self._report_at = monotonic()
        self.applied: dict[str, str] = {}
        """Part name → hash, of the parts that the cluster has accepted completely; `applied_set` is the hash of all that."""
        self.applied_set = ""
        self.settled = asyncio.Event()
        """The hub was asked what should be since this process began, and the cluster was brought there."""
        self._read_claims()

    def notice(self, hash_: str = "", spread_s: float = SPREAD_S) -> None:
        """The hub says that something changed, to this agent and to so many others that they should ask spread over `spread_s`."""
        if hash_ and hash_ == self._hash():
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
        pause = min(QUIET_S, DRIFT_SETTLE_S * 2.0 ** min(self._count_drifts(label), 10))
        self._due[label] = min(self._due.get(label, float("inf")), self._monotonic() + pause)
        self._wake.set()

    def is_as_it_should_be(self, ref: Ref, found: Document) -> bool:
        """Whether an object that a part wants is what the part wants."""
        for name, (_hash, objects) in self._kept.parts.items():
            for document in objects:
                if document.get("kind") == ref.kind and ref_of(document) == ref:
                    return is_met({"apiVersion": ref.api_version, "kind": ref.kind, **found}, mark(document, name))
        return False

    def namespace_seen(self, found: Document) -> None:
        """A namespace is there, maybe since a moment ago, or its labels changed: whatever waits for it is applied now."""
        name = str((found.get("metadata") or {}).get("name") or "")
        claim = self._claims.get(name)
        if claim is not None and not is_adorned(claim, found):
            self.tampered(claim.part)
        elif claim is None and find_marks(found):
            self.tampered(part_label(f"projects/{labels_of(found).get(PROJECT, '')}"))
        if self._orders:
            claimed = [c for c in all_claims(self._kept.parts) if c[0].namespace == name] if claim is not None else []
            for step in plan_levels(self._orders, {name: found}, claimed):
                self.tampered(step.part)
        self._appeared.add(name)
        if name in self._absent:
            self._absent -= {name}
            self._look_at(self._parts_with(name))

    def namespace_vanished(self, name: str) -> None:
        """A namespace went with all that was in it: what is kept in it waits for another from now on."""
        self._look_at(self._parts_with(name))

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
        applied = (o for _hash, objects in parts.values() for o in objects if not is_order(o))
        kinds = {*self._kept.kinds, *((str(o["apiVersion"]), str(o["kind"])) for o in applied)}
        changed = {
            name for name in parts.keys() | self._kept.parts.keys() if parts.get(name) != self._kept.parts.get(name)
        }
        self._kept.parts, self._kept.kinds = parts, sorted(kinds)
        self._read_claims()
        self.kinds_changed.set()
        # Before anything is applied: kinds that are not remembered could never be found again.
        await self._state.save_kept(self._kept)
        self._look_at(part_label(name) for name in changed)
        log.info(
            DESIRED_CHANGED, parts={name: parts[name][0][:12] if name in parts else "" for name in sorted(changed)}
        )
        return True

    def _read_claims(self) -> None:
        self._orders = read_orders(self._kept.parts)
        claims = (
            with_level(parse_claim(o, name), self._orders)
            for name, (_hash, objects) in self._kept.parts.items()
            for o in objects
            if is_claim(o)
        )
        self._claims = {claim.namespace: claim for claim in claims}

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
        before = dict(self._results)
        made = await self._enforcer.run(parts, self.kinds, only, self._is_awaited)
        self._moving = made.moving
        if made.is_cut:
            self._look_at(made.moving)
        labels = {part_label(name): name for name in parts}
        for label in {*labels, *made.failures} if only is None else {*only, *made.failures}:
            self._note(label, labels.get(label, ""), "; ".join(made.failures.get(label, ()))[:_MAX_ERROR])
        for label, name in labels.items():
            if name in self._results and (only is None or label in only):
                remarks = made.remarks.get(label, "")[:_MAX_ERROR]
                self._results[name] = self._results[name].model_copy(update={"remarks": remarks})
        for label, touched in made.touched.items():
            self._note_repair(
                label, self._results.get(labels.get(label, "")), before.get(labels.get(label, "")), touched
            )
        # Of a part that is no more only what is left of it is told, and that has no hash.
        self._results = {name: r for name, r in self._results.items() if name in parts or (r.error and not r.hash)}
        self._absent = made.absent if only is None else self._absent | made.absent
        if made.concerns_all:
            self.look_at_all()
        for name in self._absent & self._appeared:
            # It came while this round found it absent.
            self._look_at(self._parts_with(name))
        self.applied = {report.name: report.hash for report in self._results.values() if not report.error}
        self.applied_set = set_hash(self.applied)
        self.trials_changed.set()
        return [report for _name, report in sorted(self._results.items())]

    def _is_awaited(self) -> bool:
        """Whether there is something to do that does not wait for objects to be moved from part to part."""
        return min(self._pull_at, *self._due.values(), self._enforce_at) <= self._monotonic()

    def _note(self, label: str, name: str, error: str) -> None:
        """What became of a part. One that is no more (`name` empty) and can't be removed is told by its label: the hub should know it, too."""
        if name:
            hash_, objects = self._kept.parts[name]
            before = self._results.get(name) or PartReport(name=name, hash="")
            self._results[name] = before.model_copy(update={"hash": hash_, "objects": len(objects), "error": error})
        else:
            self._results.pop(label, None)
            if error:
                self._results[label] = PartReport(name=label, hash="", error=error)
        if error:
            failed = self._failures[label] = self._failures.get(label, 0) + 1
            self._due[label] = self._monotonic() + max(RETRY_S, _jittered(failed))
        else:
            self._failures.pop(label, None)

    def _note_repair(
        self, label: str, report: PartReport | None, before: PartReport | None, touched: Sequence[str]
    ) -> None:
        """What was written for a part that was as it should be, and that nobody in the hub wanted otherwise, somebody else had changed."""
        if report is None or before is None or before.hash != report.hash or before.error:
            return
        report = report.model_copy(update={"repairs": before.repairs + 1, "repaired": "; ".join(touched)[:_MAX_ERROR]})
        self._results[report.name] = report
        self._drifts[label] = (self._count_drifts(label) + 1, self._monotonic())
        log.warning(DRIFT_REPAIRED, part=report.name, objects=report.repaired)

    def _count_drifts(self, label: str) -> int:
        """How often a part was put right in a row, without a quiet time between."""
        count, last = self._drifts.get(label, (0, 0.0))
        return count if self._monotonic() - last <= QUIET_S else 0

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

    def _parts_with(self, namespace: str) -> list[str]:
        """Label values of the parts that claim a namespace or have objects in it."""
        found = []
        for name, (_hash, objects) in self._kept.parts.items():
            metadata = ((o.get("metadata") or {}, is_claim(o)) for o in objects)
            if any(m.get("name" if claims else "namespace") == namespace for m, claims in metadata):
                found.append(part_label(name))
        return found

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
        return _jittered(self._attempts[what])

    def _hash(self) -> str:
        return set_hash({name: hash_ for name, (hash_, _objects) in self._kept.parts.items()})


def _jittered(attempt: int) -> float:
    low, high = _BACKOFF_S
    return random.uniform(low / 2, min(high, low * 2.0 ** min(attempt, 10)))
