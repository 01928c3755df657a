"""What a trial looks at, and what API servers' answers mean."""

from __future__ import annotations

import pytest

from libs.common.kube.answers import parse_warning
from libs.common.kube.discovery import ApiResource
from services.agent.trial_rules import Findings, add_pods, find_subjects, violations_in

VERBS = frozenset({"list", "patch", "create"})
PODS = ApiResource("v1", "Pod", "pods", True, VERBS)
SECRETS = ApiResource("v1", "Secret", "secrets", True, VERBS)
NODES = ApiResource("v1", "Node", "nodes", False, VERBS)
DEPLOYMENTS = ApiResource("apps/v1", "Deployment", "deployments", True, VERBS)
METRICS = ApiResource("metrics.k8s.io/v1beta1", "PodMetrics", "pods", True, frozenset({"list"}))
KNOWN = [PODS, SECRETS, NODES, DEPLOYMENTS, METRICS]


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ({"apiGroups": [""], "resources": ["pods"], "operations": ["CREATE"]}, [("pods", "POST")]),
        ({"apiGroups": [""], "resources": ["pods"], "operations": ["CREATE", "UPDATE"]}, [("pods", "PATCH")]),
        ({"apiGroups": [""], "resources": ["pods"], "operations": ["DELETE"]}, []),
        ({"apiGroups": [""], "resources": ["pods/exec"], "operations": ["CONNECT"]}, []),
        ({"apiGroups": [""], "resources": ["*"], "operations": ["UPDATE"]}, [("nodes", "PATCH"), ("pods", "PATCH")]),
        ({"apiGroups": [""], "resources": ["*"], "operations": ["UPDATE"], "scope": "Cluster"}, [("nodes", "PATCH")]),
        ({"apiGroups": ["*"], "resources": ["pods"], "operations": ["UPDATE"]}, [("pods", "PATCH")]),
        ({"apiGroups": [""], "resources": ["secrets"], "operations": ["UPDATE"]}, []),
    ],
)
def test_what_is_tried_and_how(rule: dict[str, list[str]], found: list[tuple[str, str]]) -> None:
    assert [(s.resource.plural, s.method) for s in find_subjects([rule], KNOWN)] == found


def test_the_answers_of_this_very_policy_count_and_no_others() -> None:
    said = [
        "Validation failed for ValidatingAdmissionPolicy 'herdsman-teams' with binding 'herdsman-teams': name your team",
        "Validation failed for ValidatingAdmissionPolicy 'herdsman-teams-2' with binding 'herdsman-teams-2': something else",
    ]
    assert violations_in("teams", said, "") == ["name your team"]
    refusal = "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'herdsman-teams' with binding 'herdsman-teams' denied request: no"
    assert violations_in("teams", [], refusal) == ["no"]


def test_pods_that_violate_a_level_are_counted_with_those_that_are_like_them() -> None:
    findings = Findings()
    add_pods(
        findings,
        "web",
        [
            'existing pods in namespace "web" violate the new PodSecurity enforce level "baseline:latest"',
            "loud (and 3 other pods): privileged",
            "other: hostNetwork",
        ],
    )
    assert findings.violations == 5
    assert [(o.name, o.message) for o in findings.offenders] == [
        ("loud (and 3 other pods)", "privileged"),
        ("other", "hostNetwork"),
    ]


def test_warnings_are_read_as_api_servers_write_them() -> None:
    assert parse_warning('299 - "say \\"no\\" to c:\\\\x"') == 'say "no" to c:\\x'
    assert parse_warning('199 - "other"') == ""
