"""What an event in the cluster means to the desired set, and what came of its parts."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from libs.common import errors
from libs.common.bus.base import Message
from libs.common.bus.memory import MemoryBus
from libs.common.bus.wire import unpack
from libs.common.contracts.messages import DesiredPart, DesiredQuery, DesiredSet
from libs.common.contracts.methods import GET_DESIRED
from libs.common.kube.objects import content_hash, ref_of, set_hash
from libs.common.policies.pod_security import render_pod_security
from services.agent.enforce import Parts, Round
from services.agent.fetch import fetch_parts
from services.agent.owned import mark
from services.agent.results import QUIET_S, RETRY_S, Results
from services.agent.wanted import Wanted
from tests.policies.made import template


def claim(name: str) -> dict[str, Any]:
    spec = {"project": "shop", "projectUid": "p", "podSecurity": "baseline"}
    return {
        "apiVersion": "management.herdsman.dev/v1",
        "kind": "NamespaceClaim",
        "metadata": {"name": name},
        "spec": spec,
    }


def quota(namespace: str, pods: str) -> dict[str, Any]:
    metadata = {"name": "q", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": pods}}}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": "u", "labels": labels}}


PARTS: Parts = {
    "pod-security/base": ("h", render_pod_security(template(stage="Enforce"))),
    "projects/shop": ("h", [claim("web"), quota("web", "3")]),
    "projects/shop/1": ("h", [claim("old"), quota("old", "3"), quota("web", "3")]),
}


def test_a_namespace_event_names_the_parts_by_which_it_is_not_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Wanted(PARTS)
    # Claims are read when the set comes, not at each event: a cluster has thousands of namespaces.
    monkeypatch.delattr("services.agent.enforce.parse_claim")
    monkeypatch.delattr("services.agent.wanted.parse_claim")
    assert wanted.find_tampered(namespace("web")) == ["projects.shop", "pod-security.base"]
    assert wanted.find_tampered(namespace("other")) == ["pod-security.base"]
    assert wanted.find_tampered(namespace("kube-system")) == []
    strange = {"management.herdsman.dev/project": "lab"}
    assert wanted.find_tampered(namespace("kube-system", **strange)) == ["projects.lab"]
    assert Wanted({}).find_tampered(namespace("web")) == []


def test_the_parts_of_a_namespace_are_those_that_claim_it_or_have_objects_in_it() -> None:
    wanted = Wanted(PARTS)
    assert wanted.parts_with("web") == ["projects.shop", "projects.shop.1"]
    assert wanted.parts_with("old") == ["projects.shop.1"]
    assert wanted.parts_with("none") == wanted.parts_with("") == []


def test_an_object_is_as_it_should_be_or_not() -> None:
    wanted, ref = Wanted(PARTS), ref_of(quota("web", "3"))
    marked = {
        key: value for key, value in mark(quota("web", "3"), "projects/shop").items() if key in ("metadata", "spec")
    }
    assert wanted.is_as_it_should_be(ref, marked)
    assert not wanted.is_as_it_should_be(ref, {**marked, "spec": {"hard": {"pods": "4"}}})
    assert not wanted.is_as_it_should_be(ref_of(quota("none", "3")), marked)


# ── results ──


def told(results: Results) -> dict[str, tuple[str, int]]:
    return {report.name: (report.error, report.repairs) for report in results.reports}


def test_only_what_was_as_it_should_be_is_told_as_put_right_and_a_part_that_is_gone_while_it_fails() -> None:
    now = [100.0]
    results = Results(lambda: now[0])
    first: Parts = {"a": ("1", []), "b/c": ("1", [])}
    again = results.take_in(Round(failures={"b.c": ["no"]}, touched={"a": ["A"], "b.c": ["B"]}), first, None)
    assert told(results) == {"a": ("", 0), "b/c": ("no", 0)}
    assert list(again) == ["b.c"]
    assert again["b.c"] >= RETRY_S
    assert results.applied == {"a": "1"}
    with capture_logs() as logs:
        results.take_in(Round(touched={"a": ["A"], "b.c": ["B"]}), first, {"a", "b.c"})
    assert told(results) == {"a": ("", 1), "b/c": ("", 0)}
    assert [entry["part"] for entry in logs] == ["a"]
    assert results.count_drifts("a") == 1
    now[0] += QUIET_S + 1
    assert results.count_drifts("a") == 0
    less: Parts = {"a": ("2", [])}
    assert list(results.take_in(Round(failures={"b.c": ["stuck"]}, touched={"a": ["A"]}), less, {"a", "b.c"})) == [
        "b.c"
    ]
    assert told(results) == {"a": ("", 1), "b.c": ("stuck", 0)}
    assert results.take_in(Round(), less, {"b.c"}) == {}
    assert told(results) == {"a": ("", 1)}


# ── fetching ──


async def fetch(*answers: DesiredSet) -> Any:
    bus, left = MemoryBus(), list(answers)
    asked: list[dict[str, str]] = []

    async def handle(message: Message) -> DesiredSet:
        asked.append(DesiredQuery.model_validate(unpack(message.data)).have)
        return left.pop(0) if len(left) > 1 else left[0]

    async with bus.serve(GET_DESIRED.subject, handle, queue="hub"):
        return await fetch_parts(bus, "uid", {"old": ("0", [])}), asked


def answer(names: dict[str, str], *parts: DesiredPart, detach: bool = False) -> DesiredSet:
    return DesiredSet(hash=set_hash(names), names=list(names), parts=list(parts), detach=detach)


async def test_a_set_is_whole_before_it_is_taken_and_a_damaged_one_is_not() -> None:
    one, two = ([quota("web", n)] for n in ("1", "2"))
    names = {"a": content_hash(one), "b": content_hash(two)}
    a, b = (DesiredPart(name=n, hash=names[n], objects=o) for n, o in (("a", one), ("b", two)))
    found, asked = await fetch(answer(names, a), answer(names, b))
    assert found == {"a": (names["a"], one), "b": (names["b"], two)}
    assert asked == [{"old": "0"}, {"a": names["a"]}]
    assert (await fetch(answer({}, detach=True)))[0] is None
    for wrong, why in (
        (answer(names, a.model_copy(update={"objects": two})), "damaged"),
        (answer(names), "does not add up"),
        (answer(names, a), "faster"),
    ):
        with pytest.raises(errors.Unavailable, match=why):
            await fetch(wrong)
