"""The compiled audit policies of this moment, following the AuditPolicy objects. A change counts from the next call on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from libs.common import errors
from libs.common.audit.policy import Policy
from libs.common.resources import codec
from libs.common.resources.audit import AuditPolicy
from libs.common.store.base import Entry
from libs.common.store.informer import Change, Informer

log = structlog.get_logger(component="audit")
PLURAL = "auditpolicies"


class LivePolicy:
    """Invariant: an object that can't be read counts as one that shows everything; never as none."""

    def __init__(self, informer: Informer) -> None:
        self._entries: dict[str, Entry] = {}
        self._compiled: Policy | None = None
        informer.subscribe(self._changed, replay=True)

    @property
    def current(self) -> Policy:
        if self._compiled is None:
            self._compiled = self._compile()
        return self._compiled

    def _changed(self, change: Change) -> None:
        plural, _, name = change.key.partition(".")
        if plural != PLURAL:
            return
        if change.after is None:
            self._entries.pop(name, None)
        else:
            self._entries[name] = change.after
        self._compiled = None

    def _compile(self) -> Policy:
        policies: list[AuditPolicy] = []
        broken: list[tuple[int, str]] = []
        for name, entry in self._entries.items():
            try:
                policies.append(codec.decode(AuditPolicy, entry.value, entry.revision))
            except (errors.HerdsmanError, ValueError, KeyError, TypeError) as exc:
                log.error(
                    "audit_policy_unreadable", policy=name, error=str(exc), then="it counts as Metadata for everything"
                )
                broken.append((_priority(entry), name))
        return Policy(policies, broken)


def _priority(entry: Entry) -> int:
    """As far as it can be read: else before all others."""
    try:
        document: Mapping[str, Any] = codec.decode_document(entry.value, entry.revision)
        priority = document["spec"]["priority"]
    except (errors.HerdsmanError, KeyError, TypeError):
        return 0
    return priority if isinstance(priority, int) and not isinstance(priority, bool) else 0
