"""Labels of namespaces: what was there before is kept and comes back, and a stricter level is never lowered."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from libs.common.policies.levels import DOMAIN, LEVELS
from services.agent.claims import CLAIM_KIND, CLAIM_VERSION, Claim, parse_claim
from services.agent.pod_security import BEFORE, MANAGER, MARK, Level, Unlevel, plan_levels
from tests.policies.test_render import order

ENFORCE = f"{DOMAIN}/enforce"


def namespace(labels: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "web", "uid": "u", "labels": labels or {}, **metadata}}


def after(found: dict[str, Any], step: Level | Unlevel) -> dict[str, Any]:
    """The namespace once a step was taken, as server-side apply leaves it."""
    metadata = found["metadata"]
    if isinstance(step, Unlevel):
        mine = (
            metadata["managedFields"][0]["fieldsV1"]["f:metadata"]["f:labels"] if metadata.get("managedFields") else {}
        )
        kept = {k: v for k, v in metadata["labels"].items() if f"f:{k}" not in mine}
        return namespace({**kept, **step.before})
    labels = step.document["metadata"]["labels"]
    fields = {"f:metadata": {"f:labels": {f"f:{k}": {} for k in labels}}}
    return namespace(
        {**metadata["labels"], **labels}, annotations=dict(step.document["metadata"]["annotations"]),
        managedFields=[{"manager": MANAGER, "operation": "Apply", "fieldsV1": fields}],
    )  # fmt: skip


def orders(level: str) -> list[tuple[str, dict[str, Any]]]:
    return [("pod-security.base", order(stage="Enforce", enforce={"level": level}))]


@given(st.sampled_from(LEVELS), st.sampled_from(["", *LEVELS]), st.lists(st.sampled_from(LEVELS), max_size=4))
def test_any_history_of_templates_ends_with_what_was_there_and_never_lowers_it(
    first: str, own: str, then: list[str]
) -> None:
    start = namespace({ENFORCE: own} if own else {})
    found = start
    for level in (first, *then):
        for step in plan_levels(orders(level), {"web": found}):
            found = after(found, step)
        assert plan_levels(orders(level), {"web": found}) == []
        held = LEVELS.index(found["metadata"]["labels"][ENFORCE])
        assert held == max(LEVELS.index(level), LEVELS.index(own) if own else 0)
    (step,) = plan_levels([], {"web": found})
    assert isinstance(step, Unlevel)
    assert after(found, step)["metadata"]["labels"] == start["metadata"]["labels"]


def claim(level: str) -> tuple[Claim, str]:
    spec = {"project": "shop", "projectUid": "p", "podSecurity": level}
    metadata = {"name": "web"}
    document = {"apiVersion": CLAIM_VERSION, "kind": CLAIM_KIND, "metadata": metadata, "spec": spec}
    return parse_claim(document, "projects/shop"), level


def managed(**labels: list[str]) -> list[dict[str, Any]]:
    """Managed fields by which each of these managers applied these labels."""
    return [
        {
            "manager": manager.replace("_", "-"),
            "operation": "Apply",
            "fieldsV1": {"f:metadata": {"f:labels": {f"f:{k}": {} for k in keys}}},
        }
        for manager, keys in labels.items()
    ]


def test_a_project_that_lowers_its_level_is_not_held_to_what_it_wanted_before() -> None:
    """Else the agent sets one level for the project and the other for the template, for ever."""
    strict = namespace({ENFORCE: "restricted"}, managedFields=managed(herdsman=[ENFORCE]))
    (step,) = plan_levels(orders("baseline"), {"web": strict}, [claim("restricted")])
    found = after(strict, step)
    assert found["metadata"]["labels"][ENFORCE] == "restricted"
    # What the agent does for the claim: its value is another, so the other manager has the label no more.
    found["metadata"]["labels"][ENFORCE] = "baseline"
    found["metadata"]["managedFields"] = managed(herdsman=[ENFORCE], herdsman_pod_security=[MARK])
    for one in plan_levels(orders("baseline"), {"web": found}, [claim("baseline")]):
        found = after(found, one)
    assert found["metadata"]["labels"][ENFORCE] == "baseline"
    (end,) = plan_levels([], {"web": found}, [claim("baseline")])
    assert isinstance(end, Unlevel)
    assert end.before == {}


def test_who_lowers_a_level_is_seen_as_having_changed_it_and_a_new_namespace_is_not() -> None:
    (first,) = plan_levels(orders("baseline"), {"web": namespace()})
    assert isinstance(first, Level)
    assert first.is_new
    found = after(namespace(), first)
    found["metadata"]["labels"][ENFORCE] = "privileged"
    found["metadata"]["managedFields"] = []
    (again,) = plan_levels(orders("baseline"), {"web": found})
    assert isinstance(again, Level)
    assert not again.is_new
    assert again.document["metadata"]["labels"][ENFORCE] == "baseline"


def test_what_somebody_wrote_into_our_note_is_no_more_than_levels() -> None:
    odd = [{"app": "x", ENFORCE: 3}, {ENFORCE: "no label value!"}, {ENFORCE: "strict"}, {f"{ENFORCE}-version": "v1.x"}]
    for text in ("no json", "[]", *map(json.dumps, odd)):
        found = namespace({MARK: "applied"}, annotations={BEFORE: text})
        (step,) = plan_levels([], {"web": found})
        assert isinstance(step, Unlevel)
        assert step.before == {}
    kept = {ENFORCE: "baseline", f"{ENFORCE}-version": "v1.30"}
    (step,) = plan_levels([], {"web": namespace({MARK: "applied"}, annotations={BEFORE: json.dumps(kept)})})
    assert isinstance(step, Unlevel)
    assert step.before == kept
