"""Writes the condition `SubjectReachable` of bindings whose holder can come in no more, or can again. They are never removed for that.

Keys are binding names; those of `ProviderSpread` are provider names: one provider may have very many bindings, and only its own are touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from libs.common import errors
from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources.access import RoleTemplateBinding
from libs.common.store.base import Store
from libs.common.store.objects import modify
from services.authz.subjects import REACHABLE, Subjects, is_said

YIELD_EVERY = 500
"""Bindings looked at without letting other tasks run."""


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
    """A provider that opened or closed: adds those of its bindings that say something else."""

    def __init__(self, subjects: Subjects, add: Callable[[str], None]) -> None:
        self._subjects = subjects
        self._add = add

    async def reconcile(self, provider: str) -> Outcome:
        due = 0
        for number, name in enumerate(self._subjects.bindings_at(provider), 1):
            if self._subjects.is_due(name):
                due += 1
                self._add(name)
            if number % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        if due:
            log.get("authz").info("bindings_of_provider_changed", provider=provider, count=due)
        return DONE
