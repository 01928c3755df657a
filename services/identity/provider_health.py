"""Keeps the condition `Ready` of providers true: a cheap look now and again, and another when people notice something. Keys are provider names.

One replica looks by the clock (`leads`); any looks after a call of people failed because the provider did not answer, or worked although it is said
not to. A look is the test that a write makes, on connections of its own. Nothing is written while what is said stays true.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from libs.common import errors
from libs.common.observe import log
from libs.common.reconcile import DONE, After, Outcome
from libs.common.resources.providers import SECRET_FIELDS, IdentityProvider
from libs.common.store.base import Store
from libs.common.store.objects import modify
from services.identity.provider_ready import (
    ANSWERS,
    READY,
    SETTINGS_REFUSED,
    Verdict,
    judge_failure,
    judge_settings,
    say,
)
from services.identity.providers.running import Providers

if TYPE_CHECKING:
    from libs.common.store.informer import Change

DEADLINE_S = 20.0
CONFIRM_S = 5.0
"""A provider that answered the last time is asked once more, so soon, before it is said to be away."""
NOTICED_S = 10.0
"""However much people notice, it is not asked more often than this."""
MOST_AWAY_S = 300.0
"""The longest pause between looks at a provider that is away."""
REFUSED_S = 3600.0
"""Between looks at one that refused the settings: they do not get right by themselves, and many directories lock an account that gives a wrong password
again and again, also for the other programs that use it. New settings, or a call of people that works, are looked at at once."""
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class _Looked:
    """The last look: at which version of the settings, when, how long until the next, and how many failed up to it: 1 = only that, and in doubt."""

    version: tuple[str, int | None]
    at: datetime
    next_s: float
    failures: int = 0


class ProviderHealth:
    """One provider at a time."""

    def __init__(
        self, store: Store, providers: Providers, now: Callable[[], datetime], leads: Callable[[], bool] = lambda: True
    ) -> None:  # fmt: skip
        self._store = store
        self._providers = providers
        self._now = now
        self._leads = leads
        self._looked: dict[str, _Looked] = {}
        self._noticed: set[str] = set()

    def notice(self, name: str, answered: bool) -> bool:
        """A call of people ended. Returns whether it contradicts what is said of the provider, so that it has to be looked at."""
        resource = self._providers.resource(name)
        if resource is None or not resource.spec.enabled:
            return False
        said = resource.status.condition(READY)
        if said is not None and (said.status == "True") == answered:
            return False
        self._noticed.add(name)
        return True

    async def reconcile(self, name: str) -> Outcome:
        resource = self._providers.resource(name)
        if resource is None or resource.deleting:
            self._forget(name)
            return DONE
        if not self._leads() and name not in self._noticed:
            return DONE
        verdict = judge_settings(resource)
        if verdict is not None:
            self._forget(name)
            await self._write(resource, verdict)
            return DONE
        wait_s = self._wait_s(resource)
        if wait_s > 0:
            return After(wait_s)
        said = resource.status.condition(READY)
        doubtful = said is not None and said.status == "True" and name not in self._noticed
        self._noticed.discard(name)
        verdict = await self._look(resource)
        looked = self._note(resource, verdict, doubtful=doubtful)
        if looked.failures != 1:
            await self._write(resource, verdict)
        return After(looked.next_s) if self._leads() else DONE

    def _wait_s(self, resource: IdentityProvider) -> float:
        """Seconds until it is due; the test that came with the last write of the settings counts as a look."""
        looked, tested = self._looked.get(resource.name), resource.status.last_tested
        said = resource.status.condition(READY)
        due: float = 0.0
        if looked is not None and looked.version == _version(resource):
            due = looked.next_s - self._since(looked.at)
        elif (
            tested is not None
            and said is not None
            and said.status == "True"
            and said.observed_generation == _version(resource)[1]
        ):
            due = resource.spec.check_seconds - self._since(tested)
        if resource.name in self._noticed:
            due = min(due, 0.0 if looked is None else NOTICED_S - self._since(looked.at))
        return due

    def _since(self, moment: datetime) -> float:
        return (self._now() - moment).total_seconds()

    async def _look(self, resource: IdentityProvider) -> Verdict:
        try:
            provider = self._providers.make(resource)
        except (errors.HerdsmanError, ValueError) as exc:
            log.get("identity").error("provider_unusable", provider=resource.name, error=str(exc))
            return judge_failure(resource.name, errors.Internal("its settings cannot be used"), ())
        if provider is None:
            return ANSWERS
        try:
            async with asyncio.timeout(DEADLINE_S):
                await provider.test()
        except TimeoutError:
            return self._failed(resource, errors.Unavailable(f"it did not answer within {DEADLINE_S:.0f} s"))
        except errors.HerdsmanError as exc:
            return self._failed(resource, exc)
        finally:
            await provider.aclose()
        return ANSWERS

    def _failed(self, resource: IdentityProvider, error: errors.HerdsmanError) -> Verdict:
        log.get("identity").info("provider_look_failed", provider=resource.name, error=error.message)
        settings = self._providers.open_settings(resource)
        secrets = [str(getattr(settings, field)) for field in SECRET_FIELDS[resource.spec.type]]
        return judge_failure(resource.name, error, secrets)

    def _note(self, resource: IdentityProvider, verdict: Verdict, *, doubtful: bool) -> _Looked:
        """`doubtful`: a first failure may be a moment's, nobody else has seen one."""
        version, before = _version(resource), self._looked.get(resource.name)
        every_s = float(resource.spec.check_seconds)
        if verdict.ok:
            failures, next_s = 0, every_s
        else:
            failures = 1 + (before.failures if before is not None and before.version == version else 0)
            failures = max(failures, 1 if doubtful else 2)
            next_s = min(every_s * 2.0 ** min(max(failures - 2, 0), 20), max(every_s, MOST_AWAY_S))
            if failures == 1:
                next_s = min(CONFIRM_S, every_s)
            elif verdict.reason == SETTINGS_REFUSED:
                next_s = max(every_s, REFUSED_S)
        looked = _Looked(version, self._now(), next_s * random.uniform(1 - JITTER, 1 + JITTER), failures)
        self._looked[resource.name] = looked
        return looked

    async def _write(self, resource: IdentityProvider, verdict: Verdict) -> None:
        """Unless it is said already, or the settings were written meanwhile: that write said what is true of them."""
        if not say(resource.model_copy(deep=True), verdict, self._now()):
            return
        written = False

        def mutate(current: IdentityProvider) -> bool:
            nonlocal written
            same = _version(current) == _version(resource) and current.private == resource.private
            written = same and say(current, verdict, self._now())
            return written

        try:
            await modify(self._store, IdentityProvider, resource.name, mutate, now=self._now)
        except errors.NotFound:
            return
        if written:
            tell = (
                log.get("identity").info if verdict.ok or verdict.reason == "Disabled" else log.get("identity").warning
            )
            tell("provider_ready_changed", provider=resource.name, ready=verdict.ok, reason=verdict.reason)

    def _forget(self, name: str) -> None:
        self._looked.pop(name, None)
        self._noticed.discard(name)


def keys_of_provider(change: Change) -> Iterable[str]:
    """A provider that is new or was changed; its own status writes are looked at too, and are not due."""
    return (change.key.partition(".")[2],)


def _version(resource: IdentityProvider) -> tuple[str, int | None]:
    return resource.uid, resource.metadata.generation
