"""One round on the cluster: look, compare, take the steps, say of each part what came of it. `desired` decides when, and for which parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import structlog

from libs.common.kube.objects import Document, Ref, labels_of
from libs.common.policies.names import POLICY
from services.agent.apply import OLD_RIGHTS, Applier, Observed, Outcome
from services.agent.claims import (
    Adorn,
    Claim,
    Make,
    Release,
    diff_claims,
    find_claim_refusal,
    is_claim,
    is_order,
    parse_claim,
)
from services.agent.diff import Apply, Delete, Step, diff_objects
from services.agent.owned import AGENT_PART, BINDING_KINDS, PART, part_label
from services.agent.pod_security import Level, Orders, Unlevel, plan_levels, read_orders, with_level

Parts = Mapping[str, tuple[str, Sequence[Document]]]
"""Part name → (hash, objects)."""
PARTS_AT_ONCE = 20
"""A round for more parts than these looks at everything: a selector is no place for hundreds of names."""
DESIRED_APPLIED = "desired_applied"
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Round:
    """`failures` by label value of a part; `touched`: what was written for each, with who changed it before, for people."""

    failures: dict[str, list[str]] = field(default_factory=dict)
    touched: dict[str, list[str]] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    remarks: dict[str, str] = field(default_factory=dict)
    """What the cluster finds wrong with what it has accepted, by label value of a part."""
    concerns_all: bool = False
    """Something was found that parts outside of this round rest on."""
    moving: frozenset[str] = frozenset()
    """Label values of the parts between which objects are still to be moved: a round for one of them must look at all."""
    is_cut: bool = False
    """Whether moves were left for another round."""


class Enforcer:
    """What it remembers between rounds is which roles are strangers': a round for some parts does not look at those."""

    def __init__(self, applier: Applier) -> None:
        self._applier = applier
        self._strangers: set[str] = set()

    async def run(
        self, parts: Parts, kinds: Iterable[tuple[str, str]], only: AbstractSet[str] | None = None,
        is_awaited: Callable[[], bool] = lambda: False,
    ) -> Round:  # fmt: skip
        """Bring the cluster to `parts`, or with `only` what belongs to the parts with these label values.

        Objects that only go from one part to another are marked anew in a round that has nothing else to do, and until `is_awaited`: nobody's
        right depends on it, and somebody may wait for the next round.
        Raises Unavailable, Timeout, Unauthenticated when the API server can't be worked with.
        """
        if only is not None and len(only) > PARTS_AT_ONCE:
            only = None
        outcome = Outcome(strangers=set() if only is None else set(self._strangers))
        desired = {name: [o for o in objects if not is_order(o)] for name, (_hash, objects) in parts.items()}
        orders = read_orders(parts)
        here, elsewhere = _read_claims(parts, only, orders, outcome)
        observed = await self._applier.observe_owned(kinds, only or ())
        mine = {ref: found for ref, found in observed.objects.items() if labels_of(found).get(PART) != AGENT_PART}
        _note_refused(desired, observed, only, outcome)
        # Which namespaces a template speaks of, only a look at all of them tells.
        levels = _are_levels_due(parts, orders, only)
        names = None if only is None or levels else {claim.namespace for claim in here}
        namespaces = await self._applier.observe_namespaces(names)
        plan = diff_claims(
            here, namespaces, held={ref.namespace for ref in mine}, claimed=elsewhere - {claim.namespace for claim in here},
        )  # fmt: skip
        outcome.blocked |= {name: why for name, why in plan.blocked.items() if name not in outcome.blocked}
        outcome.absent |= plan.absent
        for claim in here:
            if claim.namespace in plan.blocked:
                outcome.fail(claim.part, plan.blocked[claim.namespace])
        # Nothing is wanted where nothing may be applied: what is ours there from before goes, as nobody's right to it is sure.
        wanted = {
            name: [o for o in objects if _namespace_of(o) not in outcome.blocked] for name, objects in desired.items()
        }
        takes, gives = diff_objects(wanted, mine, only)
        steps = plan_levels(orders, namespaces, all_claims(parts)) if levels else []
        moves = [step for step in gives if isinstance(step, Apply) and step.moved_from]
        await self._applier.take([*takes, *plan.steps, *steps, *gives[: len(gives) - len(moves)]], outcome)
        has_written, unmoved = outcome.writes > 0, list(moves)
        while unmoved and not has_written:
            await self._applier.take([unmoved.pop(0)], outcome)
            if is_awaited():
                break
        await self._unbind_strangers(mine, outcome)
        found_strangers = not outcome.strangers <= self._strangers
        self._strangers = outcome.strangers
        if outcome.writes:
            log.info(DESIRED_APPLIED, writes=outcome.writes, failures=len(outcome.failures))
        touched = {
            part: list(dict.fromkeys(_tell(step, observed.changers | outcome.changers) for step in repairs))
            for part, steps in outcome.done.items()
            if (repairs := [step for step in steps if _is_repair(step)])
        }
        moved = {step.ref for steps in outcome.done.values() for step in steps if isinstance(step, Apply)}
        moving = frozenset(label for step in moves if step.ref not in moved for label in (step.part, step.moved_from))
        return Round(
            outcome.failures, touched, frozenset(outcome.absent), find_remarks(mine), only is not None and found_strangers, moving, bool(unmoved)
        )  # fmt: skip

    async def _unbind_strangers(self, mine: Mapping[Ref, Document], outcome: Outcome) -> None:
        """A role of ours that somebody replaced by one of their own is bound by us no longer: its rules are not the hub's."""
        steps: list[Step] = []
        for ref, found in mine.items():
            role: Mapping[str, Any] = found.get("roleRef") or {}
            if ref.kind in BINDING_KINDS and role.get("name") in outcome.strangers:
                part = labels_of(found).get(PART, "")
                steps.append(Delete(ref, str(found["metadata"]["uid"]), part))
                outcome.fail(part, f'{ref} is taken away: its ClusterRole "{role["name"]}" belongs to somebody else')
        await self._applier.take(steps, outcome)


def all_claims(parts: Parts) -> list[tuple[Claim, str]]:
    """Each claim of all parts, with the Pod Security level that its project wants."""
    return [
        (parse_claim(document, name), str((document.get("spec") or {}).get("podSecurity") or ""))
        for name, (_hash, objects) in parts.items()
        for document in objects
        if is_claim(document) and not find_claim_refusal(document)
    ]


def find_remarks(mine: Mapping[Ref, Document]) -> dict[str, str]:
    """What each API server found in the CEL of policies when it checked the types; the rest it says when they are applied."""
    remarks: dict[str, str] = {}
    for ref, found in sorted(mine.items()):
        checked = ((found.get("status") or {}).get("typeChecking") or {}) if ref.kind == POLICY else {}
        told = [
            f"{w.get('fieldRef', '')}: {' '.join(str(w.get('warning', '')).split())}"
            for w in checked.get("expressionWarnings") or ()
        ]
        if told:
            remarks.setdefault(labels_of(found).get(PART, ""), "; ".join(told))
    return remarks


def _are_levels_due(parts: Parts, orders: Orders, only: AbstractSet[str] | None) -> bool:
    """Whether this round is about the levels of namespaces: it has a template's part, or that of one that is gone."""
    if only is None:
        return True
    others = {part_label(name) for name in parts} - {label for label, _spec in orders}
    return not only <= others


def _read_claims(
    parts: Parts, only: AbstractSet[str] | None, orders: Orders, outcome: Outcome
) -> tuple[list[Claim], set[str]]:
    """The claims of the parts of this round, but for those that are refused; and the namespaces that other parts claim."""
    claims: list[Claim] = []
    elsewhere: set[str] = set()
    for name, (_hash, objects) in sorted(parts.items()):
        is_here = only is None or part_label(name) in only
        for document in objects:
            if not is_claim(document):
                continue
            if not is_here:
                elsewhere.add(document["metadata"]["name"])
                continue
            claim, refusal = with_level(parse_claim(document, name), orders), find_claim_refusal(document)
            if refusal:
                outcome.blocked[claim.namespace] = f"the agent refuses what the hub asked for: {refusal}"
                outcome.fail(claim.part, outcome.blocked[claim.namespace])
            else:
                claims.append(claim)
    return claims, elsewhere


def _note_refused(
    desired: Mapping[str, Sequence[Document]], observed: Observed, only: AbstractSet[str] | None, outcome: Outcome
) -> None:
    """Parts with objects of kinds that the agent may not even look at. Nothing of them is applied blindly, the rest of the part is."""
    for name, objects in desired.items():
        label = part_label(name)
        refused = {(str(o.get("apiVersion")), str(o.get("kind"))) for o in objects} & observed.refused
        if refused and (only is None or label in only):
            kinds = ", ".join(sorted(kind for _version, kind in refused))
            outcome.fail(label, f"{OLD_RIGHTS} (it may not look at {kinds})")


def _is_repair(step: Step) -> bool:
    """Whether a step that was taken may have put right what somebody changed: levels that begin or end and objects that change part do not."""
    if isinstance(step, Apply):
        return not step.moved_from
    return not (isinstance(step, Unlevel) or (isinstance(step, Level) and step.is_new))


def _namespace_of(document: Document) -> str:
    return str((document.get("metadata") or {}).get("namespace") or "")


def _tell(step: Step, changers: Mapping[Ref, str]) -> str:
    match step:
        case Make() | Adorn():
            return f'Namespace "{step.claim.namespace}"'
        case Release() | Level() | Unlevel():
            return f'Namespace "{step.namespace}"'
        case _:
            changer = changers.get(step.ref, "")
            return f"{step.ref} (changed by {changer})" if changer else str(step.ref)
