"""Policies for tests, from the few things in which they differ."""

from __future__ import annotations

from typing import Any

from libs.common.resources.policies import AdmissionPolicy, PodSecurityTemplate

PODS = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE", "UPDATE"]}


def admission(name: str = "teams", generation: int = 1, **spec: Any) -> AdmissionPolicy:
    given = {
        "clusters": {"global": True},
        "matchConstraints": {"resourceRules": [PODS]},
        "validations": [{"expression": "has(object.metadata.labels)", "message": "labels are needed"}],
        **spec,
    }
    metadata = {"name": name, "uid": f"uid-{name}", "generation": generation}
    return AdmissionPolicy.model_validate({"metadata": metadata, "spec": given})


def template(name: str = "base", generation: int = 1, **spec: Any) -> PodSecurityTemplate:
    given = {"clusters": {"global": True}, "enforce": {"level": "baseline"}, **spec}
    metadata = {"name": name, "uid": f"uid-{name}", "generation": generation}
    return PodSecurityTemplate.model_validate({"metadata": metadata, "spec": given})
