"""Which clusters a policy is for, and what it is called there. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from libs.common.resources.meta import Resource
from libs.common.resources.policies import ClusterChoice
from libs.common.resources.selectors import is_selected

ADMISSION_PARTS, POD_SECURITY_PARTS = "policies/", "pod-security/"
"""Prefixes of parts of a cluster's desired set: one part for each policy."""
TRIAL = "management.herdsman.dev/trial"
"""Annotation on a policy: each new value has it tried again everywhere."""


def is_chosen(choice: ClusterChoice, cluster: str, labels: Mapping[str, str]) -> bool:
    """Whether a policy is for this cluster. A choice that says nothing chooses nothing."""
    if choice.all or cluster in choice.names:
        return True
    if choice.selector is None or not choice.selector.requirements:
        return False
    return is_selected(choice.selector.requirements, labels)


def part_of(kind: str, name: str) -> str:
    """Name of the part that holds a policy."""
    return f"{ADMISSION_PARTS if kind == 'AdmissionPolicy' else POD_SECURITY_PARTS}{name}"


def trial_id(policy: Resource) -> str:
    """What one trial is called: another version is another trial, and so is the same version when somebody asks again."""
    asked = (policy.metadata.annotations or {}).get(TRIAL, "")
    text = f"{policy.uid}\n{policy.metadata.generation}\n{asked}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]
