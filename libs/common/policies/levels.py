"""Pod Security levels: which is stricter, and what labels a namespace should have by all orders together. Pure; agents import it.

Kubernetes' own admission enforces the labels; nothing of the Pod Security Standards is written again here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from libs.common.policies.names import SYSTEM_NAMESPACES

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
