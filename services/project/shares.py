"""The parts of a project's quota that its namespaces have. Pure: who writes a project fills them in, and all others read them there.

A share that somebody gave stays what it is. All other namespaces have equal parts of the rest, rounded down, so that all shares
together are never more than the quota, in whatever order namespaces and quotas come and go.
"""

from __future__ import annotations

from collections.abc import Iterator

from libs.common.errors import Cause
from libs.common.quantity import MEBI, NANOS, Quantity, format_quantity, parse_quantity
from libs.common.resources.projects import Project, ProjectNamespace
from services.project.policies import MILLI, is_counted
from services.project.rules import key_of

_FINE_BELOW = 64


def given_of(namespace: ProjectNamespace) -> dict[str, str]:
    """The share that somebody gave, without what the hub filled in."""
    return {name: text for name, text in namespace.share.items() if name not in namespace.equal_share}


def fill_shares(old: Project | None, new: Project) -> None:
    """Write the equal parts into `new`. Leaves a project alone whose amounts cannot be read: `check_shares` and `policies` say why."""
    before = {key_of(n): n for n in old.spec.namespaces} if old is not None else {}
    for namespace in new.spec.namespaces:
        namespace.share = _given_now(before.get(key_of(namespace)), namespace)
        namespace.equal_share = []
    for resource, text in new.spec.quota.items():
        needy = [n for n in new.spec.namespaces if resource not in n.share]
        try:
            limit = parse_quantity(text)
            rest = limit.nanos - sum(parse_quantity(n.share[resource]).nanos for n in new.spec.namespaces if resource in n.share)  # fmt: skip
        except ValueError:
            continue
        part = _part(resource, limit, max(rest, 0), len(needy)) if needy else ""
        for namespace in needy:
            namespace.share[resource] = part
            namespace.equal_share.append(resource)
    for namespace in new.spec.namespaces:
        namespace.share = dict(sorted(namespace.share.items()))
        namespace.equal_share.sort()


def check_shares(project: Project) -> list[Cause]:
    """After `fill_shares`: no more than the quota together, and something of it for everybody."""
    spec, causes = project.spec, []
    for index, namespace in enumerate(spec.namespaces):
        causes += [
            Cause(
                f"spec.namespaces[{index}].share[{name}]",
                "Forbidden: the project has no quota of it: take the share away, or give the project a quota",
                "FieldValueForbidden",
            )
            for name in namespace.share
            if name not in spec.quota
        ]
    for resource, text in spec.quota.items():
        try:
            causes += list(_check_sum(project, resource, parse_quantity(text)))
        except ValueError:
            continue
    return causes


def check_use(old: Project | None, new: Project) -> tuple[list[Cause], list[str]]:
    """Amounts that were lowered below what is used: causes for those that somebody gave, warnings for equal parts that shrank.

    Nothing that runs is ended by a quota, but nothing new starts where it is used up.
    """
    causes, warnings = [], []
    for resource, text in new.spec.quota.items():
        if old is None or old.spec.quota.get(resource) != text:
            used = new.status.used.get(resource)
            if used is not None and _is_less(text, used):
                causes.append(Cause(f"spec.quota[{resource}]", f'Invalid value: "{text}": {used} is used'))
    before = {key_of(n): n.share for n in old.spec.namespaces} if old is not None else {}
    in_use = {(n.cluster, n.namespace): n.used for n in new.status.namespaces}
    for index, namespace in enumerate(new.spec.namespaces):
        for resource, text in namespace.share.items():
            used = in_use.get(key_of(namespace), {}).get(resource)
            if used is None or before.get(key_of(namespace), {}).get(resource) == text or not _is_less(text, used):
                continue
            path = f"spec.namespaces[{index}].share[{resource}]"
            if resource in namespace.equal_share:
                warnings.append(f"{path}: the equal part is {text} now and {used} is used: nothing new starts there")
            else:
                causes.append(Cause(path, f'Invalid value: "{text}": {used} is used'))
    return causes, warnings


def _is_less(text: str, used: str) -> bool:
    try:
        return parse_quantity(text).nanos < parse_quantity(used).nanos
    except ValueError:
        return False


def _check_sum(project: Project, resource: str, limit: Quantity) -> Iterator[Cause]:
    most = format_quantity(limit.nanos, binary=limit.binary)
    total = 0
    for index, namespace in enumerate(project.spec.namespaces):
        if resource not in namespace.share:
            continue
        path, text = f"spec.namespaces[{index}].share[{resource}]", namespace.share[resource]
        share = parse_quantity(text)
        total += share.nanos
        if resource in namespace.equal_share and not share.nanos and limit.nanos:
            why = f"nothing of the quota of {most} is left for it: raise spec.quota[{resource}], or give other namespaces less"
            yield Cause(path, f"Forbidden: {why}", "FieldValueForbidden")
        elif total > limit.nanos:
            together = format_quantity(total, binary=limit.binary)
            yield Cause(
                path, f'Invalid value: "{text}": with it the namespaces have {together}, and the quota is {most}'
            )
            return


def _given_now(before: ProjectNamespace | None, now: ProjectNamespace) -> dict[str, str]:
    """What of a share counts as given: all that is not marked as filled in, and what was changed although it is marked."""
    filled = {
        name
        for name in now.equal_share
        if before is None or (name in before.equal_share and before.share.get(name) == now.share.get(name))
    }
    return {name: text for name, text in now.share.items() if name not in filled}


def _part(resource: str, limit: Quantity, rest: int, count: int) -> str:
    exact = rest // count
    unit = NANOS
    if resource.rpartition(".")[2] == "cpu":
        unit = MILLI
    elif not is_counted(resource) and exact >= _FINE_BELOW * MEBI * NANOS:
        unit = (MEBI if limit.binary else 10**6) * NANOS
    return format_quantity(exact // unit * unit, binary=limit.binary)
