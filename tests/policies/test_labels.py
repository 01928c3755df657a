"""Labels of a cluster by which policies go: changing them takes the right to change the policies."""

from __future__ import annotations

from typing import Any

import pytest

from libs.common import errors
from libs.common.access.grants import Grants, compile_grants
from libs.common.apiserver.strategy import WriteContext
from libs.common.resources.clusters import Cluster
from libs.common.resources.meta import ObjectMeta
from services.cluster_controller.policies import check_labels
from tests.access import made
from tests.policies.made import admission, template

ADA = made.user("ada")
BY_ZONE = {"selector": {"matchLabels": {"zone": "eu"}}}


def grants(clock: Any, *resources: str) -> Grants:
    rules = [{"verbs": ["update"], "apiGroups": ["*"], "resources": list(resources)}]
    roles = [made.role("some", "global", hub=rules)] if resources else []
    bindings = [made.binding(ADA, "some", everywhere=True)] if resources else []
    return compile_grants(roles, bindings, [], [ADA], clock())


def cluster(**labels: str) -> Cluster:
    return Cluster(metadata=ObjectMeta(name="edge", uid="u", labels=labels))


@pytest.mark.parametrize("make", [admission, template])
@pytest.mark.parametrize(
    ("before", "after"), [({"zone": "eu"}, {}), ({}, {"zone": "eu"}), ({"zone": "eu"}, {"zone": "us"})]
)
def test_a_policy_begins_and_ceases_only_by_who_may_change_it(
    clock: Any, make: Any, before: dict[str, str], after: dict[str, str]
) -> None:
    policy = make(clusters=BY_ZONE)
    plural = "admissionpolicies" if make is admission else "podsecuritytemplates"
    ctx = WriteContext(made.caller(ADA), grants(clock, plural), clock(), "patch")
    check_labels([policy], ctx, cluster(**before), cluster(**after))
    ctx.grants = grants(clock, "clusters")
    with pytest.raises(errors.Denied, match=policy.name):
        check_labels([policy], ctx, cluster(**before), cluster(**after))


def test_other_labels_are_free(clock: Any) -> None:
    ctx = WriteContext(made.caller(ADA), grants(clock), clock(), "patch")
    policies = [admission(clusters=BY_ZONE), admission(name="all"), template(clusters={"names": ["edge"]})]
    check_labels(policies, ctx, cluster(zone="eu"), cluster(zone="eu", tier="one"))
