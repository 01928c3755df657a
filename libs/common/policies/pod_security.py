"""A PodSecurityTemplate → the order that a cluster's agent gets. Pure.

The hub does not know all namespaces of a cluster, so the agent works out each of them, by `levels`.
"""

from __future__ import annotations

from typing import Any

from libs.common.policies.choice import trial_id
from libs.common.policies.levels import LATEST, LEVELS, ORDER_KIND, Mode, strictest
from libs.common.policies.names import SYSTEM_NAMESPACES
from libs.common.resources.meta import API_VERSION
from libs.common.resources.policies import PodSecurityTemplate, SecurityMode


def render_pod_security(template: PodSecurityTemplate) -> list[dict[str, Any]]:
    """The order to the agent. In stage Audit what would be enforced is warned of and noted instead."""
    spec = template.spec
    enforce, audit, warn = (_mode(mode) for mode in (spec.enforce, spec.audit, spec.warn))
    modes = {"enforce": enforce, "audit": audit, "warn": warn}
    if spec.stage == "Audit":
        modes = {
            name: strictest(m for m in (enforce, mode) if m is not None)
            for name, mode in modes.items()
            if name != "enforce"
        }
    wanted = {name: {"level": m.level, "version": m.version} for name, m in modes.items() if m is not None}
    tried = strictest(m for m in (enforce, audit, warn) if m is not None)
    body: dict[str, Any] = {
        "modes": wanted,
        "projects": sorted(set(spec.projects)),
        "exempt": sorted({*SYSTEM_NAMESPACES, *spec.exempt_namespaces}),
        "trial": {
            "policyUid": template.uid, "generation": template.metadata.generation or 0, "id": trial_id(template),
            "level": tried.level if tried else LEVELS[0], "version": tried.version if tried else LATEST,
        },
    }  # fmt: skip
    return [{"apiVersion": API_VERSION, "kind": ORDER_KIND, "metadata": {"name": template.name}, "spec": body}]


def _mode(mode: SecurityMode | None) -> Mode | None:
    return None if mode is None else Mode(mode.level, mode.version)
