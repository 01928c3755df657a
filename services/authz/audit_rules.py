"""What can be wrong with an AuditPolicy beyond its types. Pure; `strategies` calls it."""

from __future__ import annotations

from libs.common.errors import Cause
from libs.common.resources.audit import AuditPolicy, AuditRule


def check_policy(policy: AuditPolicy) -> list[Cause]:
    """One cause for each rule that says nothing, or things that exclude each other."""
    causes: list[Cause] = []
    for index, rule in enumerate(policy.spec.rules):
        causes += _check_rule(f"spec.rules[{index}]", rule)
    return causes


def _check_rule(path: str, rule: AuditRule) -> list[Cause]:
    causes = []
    if rule.level is None and rule.record_sessions is None:
        causes.append(Cause(path, "Required value: level or recordSessions", "FieldValueRequired"))
    if rule.level is None and rule.omit_stages:
        causes.append(_forbidden(f"{path}.omitStages", "it counts together with a level"))
    if rule.record_input and not rule.record_sessions:
        causes.append(_forbidden(f"{path}.recordInput", "it counts together with recordSessions: true"))
    if rule.non_resource_urls and (rule.resources or rule.namespaces):
        causes.append(
            _forbidden(f"{path}.nonResourceURLs", "no call has such a path and a resource or namespace as well")
        )
    for number, url in enumerate(rule.non_resource_urls):
        if (url != "*" and not url.startswith("/")) or "*" in url[:-1]:
            causes.append(
                Cause(
                    f"{path}.nonResourceURLs[{number}]",
                    f"Invalid value: {url[:80]!r}: must begin with '/', and '*' may only be its last character",
                )
            )
    for number, part in enumerate(rule.resources):
        if part.resource_names and not part.resources:
            causes.append(_forbidden(f"{path}.resources[{number}].resourceNames", "names need resources"))
        causes += [
            Cause(
                f"{path}.resources[{number}].resources",
                f"Invalid value: {text[:80]!r}: must be RESOURCE or RESOURCE/SUBRESOURCE",
            )
            for text in part.resources
            if not text.strip("/") or text.count("/") > 1 or text[0] == "/" or text[-1] == "/"
        ]
    return causes


def _forbidden(path: str, why: str) -> Cause:
    return Cause(path, f"Forbidden: {why}", "FieldValueForbidden")
