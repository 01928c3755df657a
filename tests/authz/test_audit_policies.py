"""Writing AuditPolicies: what makes no sense is refused with its field, and what hides calls is told."""

from __future__ import annotations

import pytest

from libs.common import errors
from libs.common.apiserver.strategy import WriteContext
from libs.common.resources.audit import AuditPolicy
from services.authz.audit_rules import check_policy
from services.authz.strategies import AuditPolicyStrategy
from tests.access import made


def policy(*rules: dict) -> AuditPolicy:
    return AuditPolicy.model_validate({"metadata": {"name": "p"}, "spec": {"rules": list(rules)}})


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({}, "spec.rules[0]"),
        ({"level": "Metadata", "recordInput": True}, "spec.rules[0].recordInput"),
        ({"recordSessions": False, "recordInput": True}, "spec.rules[0].recordInput"),
        ({"recordSessions": True, "omitStages": ["ResponseStarted"]}, "spec.rules[0].omitStages"),
        ({"level": "None", "nonResourceURLs": ["/x"], "namespaces": ["a"]}, "spec.rules[0].nonResourceURLs"),
        ({"level": "None", "nonResourceURLs": ["x"]}, "spec.rules[0].nonResourceURLs[0]"),
        ({"level": "None", "nonResourceURLs": ["/x*y"]}, "spec.rules[0].nonResourceURLs[0]"),
        ({"level": "None", "resources": [{"resourceNames": ["a"]}]}, "spec.rules[0].resources[0].resourceNames"),
        ({"level": "None", "resources": [{"resources": ["a/b/c"]}]}, "spec.rules[0].resources[0].resources"),
        ({"level": "None", "resources": [{"resources": [""]}]}, "spec.rules[0].resources[0].resources"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_its_field(rule, field):
    assert [cause.field for cause in check_policy(policy(rule))] == [field]


async def test_a_policy_that_hides_calls_is_taken_with_a_warning(clock):
    ctx = WriteContext(principal=made.caller(made.user("ada")), grants=None, now=clock(), verb="create")
    await AuditPolicyStrategy().admit(ctx, None, policy({"level": "Metadata"}, {"level": "None", "users": ["robot"]}))
    assert ctx.warnings == ["spec.rules[1]: calls that fit this rule leave no trace in the audit log"]


async def test_the_status_is_the_hubs_alone(clock):
    ctx = WriteContext(
        principal=made.caller(made.user("ada")), grants=None, now=clock(), verb="update", subresource="status"
    )
    with pytest.raises(errors.Denied):
        await AuditPolicyStrategy().admit(ctx, None, policy({"level": "Metadata"}))
