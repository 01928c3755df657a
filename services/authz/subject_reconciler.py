"""Writes the condition `SubjectReachable` of bindings whose holder can come in no more, or can again. They are never removed for that.

Keys are binding names; those of `ProviderSpread` are provider names: one provider may have very many bindings, and only its own are touched.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from libs.common import errors
from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources.access import RoleTemplateBinding
from libs.common.store.base import Store
from libs.common.store.objects import modify
from services.authz.subjects import REACHABLE, Subjects, is_said


class SubjectReconciler:
    """One binding at a time; how many at once is the runner's number of workers. What is said already is not written again."""

    def __init__(self, store: Store, subjects: Subjects, now: Callable[[], datetime]) -> None:
        self._store = store
        self._subjects = subjects
        self._now = now

    async def reconcile(self, name: str) -> Outcome:
        if not self._subjects.is_due(name):
            return DONE

        def mutate(binding: RoleTemplateBinding) -> bool:
            verdict = self._subjects.judge(binding)
            if binding.deleting or is_said(binding, verdict):
                return False
            return binding.status.set_condition(
                REACHABLE, verdict.ok, verdict.reason, verdict.message, self._now(), binding.metadata.generation
            )

        try:
            await modify(self._store, RoleTemplateBinding, name, mutate, now=self._now)
        except errors.NotFound:
            return DONE
        return DONE


class ProviderSpread:
    """A provider that opened or closed: wakes those of its bindings that say something else."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects

    async def reconcile(self, provider: str) -> Outcome:
        due = await self._subjects.wake_due(self._subjects.bindings_at(provider))
        if due:
            log.get("authz").info("bindings_of_provider_changed", provider=provider, count=due)
        return DONE
