"""Pod Security levels: which is stricter, what a template orders, and what labels a namespace should have by all orders together. Pure.

Kubernetes' own admission enforces the labels; nothing of the Pod Security Standards is written again here. The hub does not know all
namespaces of a cluster, so a template goes there as an order, and the agent works out each namespace from the same functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from libs.common.policies.choice import SYSTEM_NAMESPACES, trial_id
from libs.common.resources.meta import API_VERSION
from libs.common.resources.policies import PodSecurityTemplate, SecurityMode

ORDER_KIND = "PodSecurityOrder"
DOMAIN = "pod-security.kubernetes.io"
MODES = ("enforce", "audit", "warn")
LEVELS = ("privileged", "baseline", "restricted")
"""From the most lenient to the strictest."""
LATEST = "latest"
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class Mode:
    level: str
    version: str = LATEST

    @property
    def rank(self) -> tuple[int, float]:
        """Of two of one level the one of the newer version asks for more; `latest` is the newest."""
        return LEVELS.index(self.level), version_rank(self.version)


def version_rank(version: str) -> float:
    """Raises ValueError for what is no version."""
    found = _VERSION.fullmatch(version)
    if version != LATEST and found is None:
        raise ValueError("must be latest or v1.N")
    return float("inf") if found is None else float(found[1])


def strictest(modes: Iterable[Mode]) -> Mode | None:
    return max(modes, key=lambda mode: mode.rank, default=None)


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


def is_governed(spec: Mapping[str, Any], namespace: str, project: str) -> bool:
    """Whether an order speaks of a namespace; `project` is the name of the one that claims it, empty = none does."""
    projects = spec.get("projects") or ()
    return namespace not in (*SYSTEM_NAMESPACES, *(spec.get("exempt") or ())) and (not projects or project in projects)


def wanted_labels(
    orders: Iterable[Mapping[str, Any]], namespace: str, project: str = "", level: str = ""
) -> dict[str, str]:
    """The labels that a namespace should have by all orders (their specs), and by the level that its project wants; {} = none."""
    modes: dict[str, list[Mode]] = {}
    if level:
        modes["enforce"] = [Mode(level)]
    for spec in orders:
        if is_governed(spec, namespace, project):
            for name, mode in (spec.get("modes") or {}).items():
                modes.setdefault(name, []).append(Mode(mode["level"], mode["version"]))
    labels: dict[str, str] = {}
    for name in MODES:
        mode = strictest(modes.get(name, ()))
        if mode is not None:
            labels |= {f"{DOMAIN}/{name}": mode.level, f"{DOMAIN}/{name}-version": mode.version}
    return labels


def mode_of_labels(labels: Mapping[str, str], name: str) -> Mode | None:
    """What a namespace's labels say of one mode; None for nothing, and for what Kubernetes would not understand either."""
    level, version = labels.get(f"{DOMAIN}/{name}", ""), labels.get(f"{DOMAIN}/{name}-version", LATEST)
    if level not in LEVELS or (version != LATEST and not _VERSION.fullmatch(version)):
        return None
    return Mode(level, version)


def _mode(mode: SecurityMode | None) -> Mode | None:
    return None if mode is None else Mode(mode.level, mode.version)
