from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.common.access.grants import Grants, compile_grants
from libs.common.resources.meta import GROUP
from tests.access import made

TABLE = yaml.safe_load((Path(__file__).parent / "permissions.yaml").read_text(encoding="utf-8"))


def _rule(written: dict[str, Any]) -> dict[str, Any]:
    return made.rule(
        written["verbs"], written["resources"], *written.get("names", ()), group=written.get("group", GROUP)
    )


def _binding(who: Any, text: str) -> Any:
    role, place = text.split()
    where = {"everywhere": True} if place == "@everywhere" else {"cluster" if place[0] == "@" else "project": place[1:]}
    return made.binding(who, role, **where)


def grants_of(case: dict[str, Any]) -> Grants:
    who = made.user(case["who"], enabled=case.get("enabled", True))
    roles = [
        made.role(n, r["scope"], hub=[_rule(x) for x in r.get("hub", ())], inherits=r.get("inherits"))
        for n, r in TABLE["roles"].items()
    ]
    projects = [made.project(name, *clusters) for name, clusters in TABLE["projects"].items()]
    clusters = [made.cluster(name) for name in TABLE["clusters"]]
    bindings = [_binding(who, text) for text in case["bindings"]]
    return compile_grants(roles, bindings, clusters, [who, made.user("ada")], made.BEGIN, projects)


def answer(grants: Grants, who: str, question: str) -> bool:
    verb, plural, *rest = question.split()
    cluster = next((r[1:] for r in rest if r[0] == "@"), "")
    subresource = next((r[1:] for r in rest if r[0] == "/"), "")
    name = next((r for r in rest if r[0] not in "@/"), "")
    return grants.is_allowed(made.caller(made.user(who)), verb, plural, name, cluster, subresource)


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda c: c["who"])
def test_truth_table(case):
    grants = grants_of(case)
    for question in case["may"]:
        assert answer(grants, case["who"], question), f"{case['who']} must be allowed to {question}"
    for question in case["may_not"]:
        assert not answer(grants, case["who"], question), f"{case['who']} must not be allowed to {question}"


def test_every_case_of_the_table_asks_something():
    assert all(case["may"] or case["may_not"] for case in TABLE["cases"])
