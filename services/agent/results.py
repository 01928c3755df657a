"""What came of each part of the desired set, as the hub is told of it; and how often a part failed, or was put right, in a row."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import structlog

from libs.common.contracts.messages import PartReport
from services.agent.enforce import Parts, Round
from services.agent.owned import part_label

QUIET_S = 60.0
"""After so long without a change by others, the next one is put right at once again; and no pause is longer."""
RETRY_S = 5.0
"""A part that failed is tried again after this long at least."""
_BACKOFF_S = (1.0, 120.0)
_MAX_ERROR = 1000
DRIFT_REPAIRED = "drift_repaired"
log = structlog.get_logger(__name__)


class Results:
    """One round at a time is taken in. Of a part that is no more only what is left of it is told, and that has no hash."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._reports: dict[str, PartReport] = {}
        self._failures: dict[str, int] = {}
        self._drifts: dict[str, tuple[int, float]] = {}
        """Label value of a part → how often it was put right in a row, and when last."""

    @property
    def reports(self) -> list[PartReport]:
        """Of all parts, by name."""
        return [report for _name, report in sorted(self._reports.items())]

    @property
    def applied(self) -> dict[str, str]:
        """Part name → hash, of the parts that the cluster has accepted completely."""
        return {report.name: report.hash for report in self._reports.values() if not report.error}

    def take_in(self, made: Round, parts: Parts, only: AbstractSet[str] | None) -> dict[str, float]:
        """Note what came of a round for `parts`, or with `only` for those with these label values.

        Returns label value → in how many seconds it should be tried again, of those that failed.
        """
        again: dict[str, float] = {}
        before = dict(self._reports)
        labels = {part_label(name): name for name in parts}
        for label in {*labels, *made.failures} if only is None else {*only, *made.failures}:
            error = "; ".join(made.failures.get(label, ()))[:_MAX_ERROR]
            self._note(label, labels.get(label, ""), parts, error)
            if error:
                failed = self._failures[label] = self._failures.get(label, 0) + 1
                again[label] = max(RETRY_S, jittered(failed))
            else:
                self._failures.pop(label, None)
        for label, name in labels.items():
            if name in self._reports and (only is None or label in only):
                remarks = made.remarks.get(label, "")[:_MAX_ERROR]
                self._reports[name] = self._reports[name].model_copy(update={"remarks": remarks})
        for label, touched in made.touched.items():
            name = labels.get(label, "")
            self._note_repair(label, self._reports.get(name), before.get(name), touched)
        self._reports = {name: r for name, r in self._reports.items() if name in parts or (r.error and not r.hash)}
        return again

    def count_drifts(self, label: str) -> int:
        """How often a part was put right in a row, without a quiet time between."""
        count, last = self._drifts.get(label, (0, 0.0))
        return count if self._monotonic() - last <= QUIET_S else 0

    def _note(self, label: str, name: str, parts: Parts, error: str) -> None:
        """What became of a part. One that is no more (`name` empty) and can't be removed is told by its label: the hub should know it, too."""
        if name:
            hash_, objects = parts[name]
            before = self._reports.get(name) or PartReport(name=name, hash="")
            self._reports[name] = before.model_copy(update={"hash": hash_, "objects": len(objects), "error": error})
        else:
            self._reports.pop(label, None)
            if error:
                self._reports[label] = PartReport(name=label, hash="", error=error)

    def _note_repair(
        self, label: str, report: PartReport | None, before: PartReport | None, touched: Sequence[str]
    ) -> None:
        """What was written for a part that was as it should be, and that nobody in the hub wanted otherwise, somebody else had changed."""
        if report is None or before is None or before.hash != report.hash or before.error:
            return
        report = report.model_copy(update={"repairs": before.repairs + 1, "repaired": "; ".join(touched)[:_MAX_ERROR]})
        self._reports[report.name] = report
        self._drifts[label] = (self.count_drifts(label) + 1, self._monotonic())
        log.warning(DRIFT_REPAIRED, part=report.name, objects=report.repaired)


def jittered(attempt: int) -> float:
    """Seconds to wait after so many failures in a row."""
    low, high = _BACKOFF_S
    return random.uniform(low / 2, min(high, low * 2.0 ** min(attempt, 10)))
