"""Who writes a policy hears what is wrong with it, and nothing begins by refusing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.authz.policy_rules import begins_to_refuse, check_admission, check_pod_security
from tests.policies.made import admission, template

HERE = Path(__file__).parent


@pytest.mark.parametrize("row", yaml.safe_load((HERE / "stages.yaml").read_text()), ids=str)
def test_what_never_stood_in_audit_does_not_begin_to_refuse(row: dict[str, Any]) -> None:
    old = admission(**row["old"]) if row["old"] is not None else None
    assert begins_to_refuse(old, admission(**row["new"])) == row["begins"]


@pytest.mark.parametrize("row", yaml.safe_load((HERE / "refused.yaml").read_text()), ids=lambda row: row["field"])
def test_bad_input_is_refused_with_the_field_and_the_reason(row: dict[str, Any]) -> None:
    causes = check_admission(admission(**row["spec"]))
    assert [cause.field for cause in causes] == [row["field"]]
    assert row["why"] in causes[0].message


def test_a_policy_that_says_what_it_is_about_is_fine() -> None:
    assert check_admission(admission()) == []
    assert check_pod_security(template()) == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"enforce": None}, "spec"),
        ({"enforce": None, "warn": {"level": "baseline"}, "stage": "Enforce"}, "spec.enforce"),
        ({"enforce": {"level": "baseline", "version": "1.30"}}, "spec.enforce.version"),
        ({"clusters": {"selector": {}}}, "spec.clusters.selector"),
    ],
)
def test_a_template_that_makes_no_sense_is_refused(spec: dict[str, Any], field: str) -> None:
    assert [cause.field for cause in check_pod_security(template(**spec))] == [field]
