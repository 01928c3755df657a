"""What a project's namespaces are kept to: each wrong value is refused with its field and the reason."""

from __future__ import annotations

import pytest

from libs.common.resources.projects import Project
from services.project import policies


def causes(**spec) -> dict[str, str]:
    made = Project.model_validate({"metadata": {"name": "shop"}, "spec": spec})
    return {cause.field: cause.message for cause in policies.check_policies(made)}


def test_what_is_right_is_taken():
    assert not causes(
        quota={
            "pods": "10", "requests.cpu": "2500m", "limits.memory": "2Gi", "count/deployments.apps": "5", "requests.nvidia.com/gpu": "1",
            "fast.storageclass.storage.k8s.io/requests.storage": "1Ti", "requests.hugepages-2Mi": "4Mi", "services.loadbalancers": "0",
        },
        namespaces=[{"cluster": "east", "namespace": "web", "share": {"pods": "1"}}],
        containerLimits={"defaultRequest": {"cpu": "100m"}, "default": {"cpu": "1"}, "max": {"cpu": "2000m", "nvidia.com/gpu": "1"}},
        labels={"team": "shop", "example.com/tier": ""}, annotations={"example.com/owner": "someone, somewhere"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "field", "why"),
    [
        ({"quota": {"pod": "1"}}, "spec.quota[pod]", "must be a resource of a ResourceQuota"),
        ({"quota": {"pods": "1.5"}}, "spec.quota[pods]", "must be a whole number"),
        ({"quota": {"count/pods": "500m"}}, "spec.quota[count/pods]", "must be a whole number"),
        ({"quota": {"pods": "many"}}, "spec.quota[pods]", '"many": must be a quantity such as 500m'),
        ({"quota": {"limits.cpu": "1.0005"}}, "spec.quota[limits.cpu]", "must be a multiple of a thousandth"),
        ({"quota": {"limits.cpu": "-1"}}, "spec.quota[limits.cpu]", "must be 0 or more"),
        ({"quota": {"a b/c": "1"}}, "spec.quota[a b/c]", "must be a resource"),
        ({"namespaces": [{"cluster": "e", "namespace": "w", "share": {"pods": "x"}}]}, "spec.namespaces[0].share[pods]", "must be a quantity"),
        ({"containerLimits": {"max": {"pods": "1"}}}, "spec.containerLimits.max[pods]", "must be cpu, memory"),
        ({"containerLimits": {"default": {"cpu": "2"}, "max": {"cpu": "1"}}}, "spec.containerLimits.default[cpu]", "must be at most max: 1"),
        ({"containerLimits": {"defaultRequest": {"cpu": "2"}, "default": {"cpu": "1"}}}, "spec.containerLimits.defaultRequest[cpu]", "must be at most default: 1"),
        ({"labels": {"a/b/c": "x"}}, "spec.labels[a/b/c]", "prefix part"),
        ({"labels": {"team": "a b"}}, "spec.labels[team]", "a valid label"),
        ({"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}, "spec.labels[pod-security.kubernetes.io/enforce]", "Forbidden: keys of kubernetes.io"),
        ({"labels": {"kubernetes.io/metadata.name": "x"}}, "spec.labels[kubernetes.io/metadata.name]", "Forbidden"),
        ({"labels": {"management.herdsman.dev/project": "other"}}, "spec.labels[management.herdsman.dev/project]", "Forbidden"),
        ({"annotations": {"scheduler.alpha.kubernetes.io/node-selector": ""}}, "spec.annotations[scheduler.alpha.kubernetes.io/node-selector]", "Forbidden"),
        ({"annotations": {"cnrm.cloud.google.com/project-id": "x"}}, "spec.annotations[cnrm.cloud.google.com/project-id]", "Forbidden"),
        ({"annotations": {"note": "x" * 5000}}, "spec.annotations[note]", "Too long"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_field_and_why(spec, field, why):
    found = causes(**spec)
    assert list(found) == [field]
    assert why in found[field]


def test_a_quota_of_what_containers_do_not_say_is_told():
    def unlimited(**spec):
        return policies.find_unlimited(Project.model_validate({"spec": spec}).spec)

    assert unlimited(quota={"limits.cpu": "1", "requests.memory": "1", "pods": "3"}) == [
        "limits.cpu",
        "requests.memory",
    ]
    assert not unlimited(
        quota={"limits.cpu": "1", "requests.cpu": "1", "cpu": "1"}, containerLimits={"default": {"cpu": "1"}}
    )
    assert unlimited(quota={"limits.cpu": "1"}, containerLimits={"defaultRequest": {"cpu": "1"}}) == ["limits.cpu"]
