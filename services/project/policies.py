"""The pure checks of what a project's namespaces are kept to: quota, limits of containers, labels, annotations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from libs.common.apiserver.metadata import label_value_error, qualified_name_error
from libs.common.errors import Cause
from libs.common.quantity import NANOS, Quantity, format_quantity, parse_quantity
from libs.common.resources.projects import Project, ProjectSpec

COMPUTE = frozenset({"cpu", "memory", "ephemeral-storage"})
WHOLE = frozenset({
    "pods", "services", "services.loadbalancers", "services.nodeports", "replicationcontrollers", "resourcequotas", "secrets",
    "configmaps", "persistentvolumeclaims",
})  # fmt: skip
"""Counted things: half of one is refused."""
_QUOTA = (
    WHOLE | COMPUTE | {f"{kind}.{name}" for kind in ("requests", "limits") for name in COMPUTE} | {"requests.storage"}
)
_HUGE = re.compile(r"(requests\.)?hugepages-[0-9A-Za-z.]+")
DOMAINS = (
    "kubernetes.io", "k8s.io", "herdsman.dev", "openshift.io", "cattle.io", "amazonaws.com", "cloud.google.com", "gke.io", "azure.com",
)  # fmt: skip
"""Whoever writes labels and annotations of these on a namespace speaks to the cluster, or to what it runs on."""
MAX_ANNOTATION = 4096
MILLI = NANOS // 1000
FIELDS = ("quota", "container_limits", "isolated", "default_deny", "guarded", "pod_security", "labels", "annotations")
"""What takes the right to change projects/policies; as the document calls them, by `_camel`."""


def find_changed(old: ProjectSpec | None, new: ProjectSpec) -> list[str]:
    """The paths of policies that differ; a project that is made begins with none."""
    before = old or ProjectSpec()
    return [f"spec.{_camel(name)}" for name in FIELDS if getattr(before, name) != getattr(new, name)]


def check_policies(project: Project) -> list[Cause]:
    spec = project.spec
    causes = list(_check_amounts("spec.quota", spec.quota, quota=True))
    for index, namespace in enumerate(spec.namespaces):
        causes += _check_amounts(f"spec.namespaces[{index}].share", namespace.share, quota=True)
    causes += _check_containers(project)
    if spec.guarded and not (spec.isolated or spec.default_deny):
        causes.append(
            Cause("spec.guarded", "Forbidden: it counts together with isolated or defaultDeny", "FieldValueForbidden")
        )
    for key, value in spec.labels.items():
        causes += _check_key(f"spec.labels[{key}]", key)
        if why := label_value_error(value):
            causes.append(_invalid(f"spec.labels[{key}]", value, why))
    for key, value in spec.annotations.items():
        causes += _check_key(f"spec.annotations[{key}]", key)
        if len(value) > MAX_ANNOTATION:
            causes.append(Cause(f"spec.annotations[{key}]", f"Too long: may not be more than {MAX_ANNOTATION} bytes"))
    return causes


def find_unlimited(spec: ProjectSpec) -> list[str]:
    """Resources with a quota that containers must name themselves, because no default does: pods without are refused."""
    limits = spec.container_limits
    limited = limits.default.keys() | limits.max.keys()
    requested = limited | limits.default_request.keys()
    defaults = {"limits": limited, "requests": requested, "": requested}
    told = []
    for name in spec.quota:
        kind, _, resource = name.rpartition(".")
        if resource in ("cpu", "memory") and resource not in defaults.get(kind, requested):
            told.append(name)
    return sorted(told)


def parse_amounts(amounts: Mapping[str, str]) -> dict[str, Quantity]:
    """Amounts that were checked already."""
    return {name: parse_quantity(text) for name, text in amounts.items()}


def is_counted(resource: str) -> bool:
    """Whether only whole numbers of it make sense."""
    return resource in WHOLE or "/" in resource


def _check_amounts(path: str, amounts: Mapping[str, str], *, quota: bool) -> Iterator[Cause]:
    for name, text in amounts.items():
        at = f"{path}[{name}]"
        if not _is_resource(name, quota=quota):
            kind = "a resource of a ResourceQuota" if quota else "cpu, memory or another resource of containers"
            yield _invalid(at, name, f"must be {kind}")
            continue
        try:
            amount = parse_quantity(text)
        except ValueError as exc:
            yield _invalid(at, text, str(exc))
            continue
        if amount.nanos < 0:
            yield _invalid(at, text, "must be 0 or more")
        elif amount.nanos % MILLI:
            # An API server rounds up what is finer, and the sum of shares would then be more than the quota.
            yield _invalid(at, text, "must be a multiple of a thousandth (1m)")
        elif is_counted(name) and not amount.is_whole and not name.endswith("/requests.storage"):
            yield _invalid(at, text, "must be a whole number")


def _check_containers(project: Project) -> Iterator[Cause]:
    limits = project.spec.container_limits
    given = {"defaultRequest": limits.default_request, "default": limits.default, "max": limits.max}
    wrong = [c for part, amounts in given.items() for c in _check_amounts(f"spec.containerLimits.{part}", amounts, quota=False)]  # fmt: skip
    yield from wrong
    if wrong:
        return
    parts = [(part, parse_amounts(amounts)) for part, amounts in given.items()]
    for index, (low, lower) in enumerate(parts):
        for high, higher in parts[index + 1 :]:
            for name in sorted(lower.keys() & higher.keys()):
                if lower[name].nanos > higher[name].nanos:
                    most = format_quantity(higher[name].nanos, binary=higher[name].binary)
                    yield _invalid(
                        f"spec.containerLimits.{low}[{name}]", given[low][name], f"must be at most {high}: {most}"
                    )


def _is_resource(name: str, *, quota: bool) -> bool:
    if len(name) > 253:
        return False
    if "/" in name:
        bare = name.removeprefix("requests.") if quota else name
        return qualified_name_error(bare) is None
    return name in _QUOTA or bool(_HUGE.fullmatch(name)) if quota else name in COMPUTE or name.startswith("hugepages-")


def _check_key(path: str, key: str) -> Iterable[Cause]:
    if why := qualified_name_error(key):
        yield _invalid(path, key, why)
        return
    domain = key.rpartition("/")[0]
    kept = next((d for d in DOMAINS if domain == d or domain.endswith(f".{d}")), None)
    if kept:
        yield Cause(
            path,
            f"Forbidden: keys of {kept} are not given through a project: they mean something to the cluster itself",
            "FieldValueForbidden",
        )


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _invalid(path: str, value: str, why: str) -> Cause:
    return Cause(path, f'Invalid value: "{value[:128]}": {why}')
