"""What policies and what belongs to them are called in a cluster. Pure, and light: agents import it, and they load no resources."""

from __future__ import annotations

SYSTEM_NAMESPACES = ("herdsman-system", "kube-node-lease", "kube-public", "kube-system")
"""Exempt whatever a policy says. Named, not by prefix: whoever may make a namespace must not choose to be exempt."""

GROUP = "admissionregistration.k8s.io"
VERSION = f"{GROUP}/v1"
POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
NAME_PREFIX = "herdsman-"
"""Of the objects in a cluster; Kubernetes allows no colon there."""
TRIAL_KIND = "PolicyTrialOrder"
TRIAL_USER = "herdsman:policy-trial"
CANARY = "management.herdsman.dev/canary"
CANARY_NAMESPACE = "kube-public"
"""Where the guard of a trial is asked whether it is at work: each API server makes it, and no policy but a guard counts there. Else one that refuses
ConfigMaps would answer first, and no policy could be tried any more.
"""
UNTRIED = frozenset({("", "secrets"), ("", "events"), ("events.k8s.io", "events"), ("coordination.k8s.io", "leases")})
"""(Group, plural) of what is not tried: what nobody but their owners should read, and what changes all the time."""
AGENT_ACCOUNT = "system:serviceaccount:herdsman-system:herdsman-agent"
NO_REVIEW = "-"
"""An agent's name in a cluster that cannot say whom it takes it for: one that has no such policies either."""
PROJECT_LABEL = "management.herdsman.dev/project"


def object_name(policy: str) -> str:
    return f"{NAME_PREFIX}{policy}"


def guard_name(policy: str) -> str:
    """Of the policy that keeps trials to dry runs. Policies' names hold no dot, so no other policy is called so."""
    return f"{NAME_PREFIX}{policy}.trial"


def trial_group(policy: str) -> str:
    return f"{TRIAL_USER}:{policy}"
