"""Writing AdmissionPolicies and PodSecurityTemplates: what makes no sense is refused with its field, and nothing begins by refusing unasked.

Who may write them holds the global right to it: it is no right of a cluster or a project, for whoever is limited by a policy does not change
it. A policy gives nobody anything and can refuse much, which is why it stands in Audit first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from libs.common import errors
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.resources.policies import AdmissionPolicy, PodSecurityTemplate
from services.authz.policy_rules import begins_to_refuse, check_admission, check_pod_security, tell_trial
from services.authz.strategies import check_not_status

P = TypeVar("P", AdmissionPolicy, PodSecurityTemplate)


class PolicyStrategy(Strategy[P]):
    """The name is part of what the cluster's objects are called, so it is a label."""

    name_is_label = True

    def __init__(self, model: type[P], check: Callable[[P], list[errors.Cause]]) -> None:
        self.model = model
        self._check: Callable[[P], list[errors.Cause]] = check

    async def admit(self, ctx: WriteContext, old: P | None, new: P) -> None:
        """Raises Denied for a write of the status, Invalid."""
        check_not_status(ctx, new.name, "policy")
        causes = self._check(new)
        if causes:
            raise validate.invalid(self.model, new.name, causes)
        if begins_to_refuse(old, new) and not new.spec.enforce_at_once:
            raise validate.forbidden_field(
                self.model, new.name, "spec.stage",
                "what it refuses has not stood in Audit: begin with Audit and see what would break, or say enforceAtOnce: true",
            )  # fmt: skip
        for name in new.spec.clusters.names:
            if name not in ctx.grants.clusters:
                ctx.warnings.append(f'spec.clusters.names: there is no cluster "{name}" now')
        if new.spec.stage == "Enforce" and old is not None and old.spec.stage == "Audit":
            told = tell_trial(old.status.to_document())
            if told:
                ctx.warnings.append(f"{told}: see policytrials")


def admission_strategy() -> PolicyStrategy[AdmissionPolicy]:
    return PolicyStrategy(AdmissionPolicy, check_admission)


def pod_security_strategy() -> PolicyStrategy[PodSecurityTemplate]:
    return PolicyStrategy(PodSecurityTemplate, check_pod_security)
