"""The providers that are configured, each running with its newest settings. Changed without a restart.

Follows IdentityProviders by informer. What can't be made (a secret that does not open) is kept with the reason, and asking for it
raises that. Callers hold a provider only while they use it: one whose settings changed is closed once nobody does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from libs.common import errors
from libs.common.crypto.sealed import KeyRing
from libs.common.observe import log
from libs.common.resources.meta import check_label
from libs.common.resources.providers import LOCAL, SECRET_FIELDS, SETTINGS_FIELDS, IdentityProvider, LocalSettings
from libs.common.store.objects import Objects
from services.identity.providers.base import Provider

if TYPE_CHECKING:
    from libs.common.store.informer import Change

Factory = Callable[[IdentityProvider, Any], Provider]
"""Makes a provider from its resource and its settings, in which the secrets are open."""
Spawn = Callable[[str, Coroutine[Any, Any, None]], object]


@dataclass(slots=True)
class _Running:
    resource: IdentityProvider
    provider: Provider | None
    problem: str = ""
    users: int = 0
    replaced: bool = False


class Providers:
    """`factories` by type. A type without a factory (the hub's own accounts) has no running provider.

    `on_used` is told the name of each provider that was used, and whether it answered.
    """

    def __init__(self, known: Objects[IdentityProvider], factories: dict[str, Factory], ring: KeyRing) -> None:
        self._known = known
        self._factories = factories
        self._ring = ring
        self._running: dict[str, _Running] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.on_used: list[Callable[[str, bool], None]] = []
        known.informer.subscribe(self._changed, replay=False)

    def resource(self, name: str) -> IdentityProvider | None:
        """The provider as it is configured now."""
        return self._known.get(name)

    def local_settings(self) -> LocalSettings:
        """The rules for accounts of the hub itself; the defaults where its provider says nothing, or is not written down."""
        resource = self._known.get(LOCAL)
        return (resource.spec.local if resource is not None else None) or LocalSettings()

    def all(self) -> list[IdentityProvider]:
        """All that are configured, by name."""
        return sorted(self._known.all(), key=lambda provider: provider.name)

    def is_known(self, name: str) -> bool:
        """Whether a provider of this name is set up; the hub's own always is."""
        try:
            return name == LOCAL or self._known.get(check_label(name)) is not None
        except ValueError:
            return False

    @asynccontextmanager
    async def use(self, name: str, *, enabled: bool = True) -> AsyncIterator[Provider]:
        """The running provider of that name, while the block runs. Raises NotFound, Denied when disabled, Unavailable."""
        running = self._find(name, enabled=enabled)
        if running.provider is None:
            raise errors.Unavailable(running.problem)
        running.users += 1
        try:
            yield running.provider
        except errors.Unavailable:
            self._tell(name, answered=False)
            raise
        else:
            self._tell(name, answered=True)
        finally:
            running.users -= 1
            if running.replaced and not running.users:
                self._close(running.provider)

    def _tell(self, name: str, *, answered: bool) -> None:
        for told in self.on_used:
            told(name, answered)

    def make(self, resource: IdentityProvider) -> Provider | None:
        """A provider that nobody else sees, for a test of settings that are not stored yet; None = the type needs none. Close it."""
        factory = self._factories.get(resource.spec.type)
        return None if factory is None else factory(resource, self.open_settings(resource))

    def open_settings(self, resource: IdentityProvider) -> Any:
        """The settings with their secrets. Raises Internal when one does not open."""
        settings = resource.spec.settings
        opened = {
            field: self._ring.open(sealed, place(resource, field))
            for field, sealed in resource.private.sealed.items()
            if field in SECRET_FIELDS[resource.spec.type]
        }
        return settings.model_copy(update=opened)

    async def aclose(self) -> None:
        """Close them all."""
        for running in self._running.values():
            if running.provider is not None:
                self._close(running.provider)
        self._running.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _find(self, name: str, *, enabled: bool) -> _Running:
        resource = self._known.get(name)
        if resource is None or resource.deleting:
            raise errors.not_found("identityproviders.management.herdsman.dev", name)
        if enabled and not resource.spec.enabled:
            raise errors.Denied(f'the provider "{name}" is disabled: ask an administrator')
        running = self._running.get(name)
        if running is None:
            running = self._running[name] = self._start(resource)
        return running

    def _start(self, resource: IdentityProvider) -> _Running:
        try:
            return _Running(resource, self.make(resource), f'the provider "{resource.name}" has no accounts of its own')
        except (errors.HerdsmanError, ValueError) as exc:
            log.get("identity").error("provider_unusable", provider=resource.name, error=str(exc))
            return _Running(
                resource,
                None,
                f'the provider "{resource.name}" cannot be used: an administrator can read why in the log',
            )

    def _changed(self, change: Change) -> None:
        plural, _, name = change.key.partition(".")
        running = self._running.get(name) if plural == "identityproviders" else None
        if running is None:
            return
        now = self._known.get(name)
        if now is not None and _same(now, running.resource):
            running.resource = now
            return
        del self._running[name]
        running.replaced = True
        if running.provider is not None and not running.users:
            self._close(running.provider)

    def _close(self, provider: Provider) -> None:
        task = asyncio.get_running_loop().create_task(provider.aclose(), name="close provider")
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.get("identity").warning("provider_close_failed", error=str(task.exception()))


def place(resource: IdentityProvider, field: str) -> str:
    """What a sealed secret of a provider is bound to."""
    return f"{resource.uid}/{SETTINGS_FIELDS[resource.spec.type]}.{field}"


def _same(now: IdentityProvider, before: IdentityProvider) -> bool:
    """Whether what a running provider was made of is the same."""
    return now.uid == before.uid and now.spec == before.spec and now.private == before.private
