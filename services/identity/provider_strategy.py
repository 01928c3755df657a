"""What is special about writing IdentityProviders: secrets are sealed, settings are tested before people sign in with them.

The test runs with the very settings in the write, also for a dry run, which is therefore the way to try them out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from pydantic.alias_generators import to_camel

from libs.common import errors
from libs.common.apiserver import validate
from libs.common.apiserver.strategy import Strategy, WriteContext
from libs.common.crypto.sealed import KeyRing
from libs.common.resources.providers import LOCAL, SECRET_FIELDS, SETTINGS_FIELDS, IdentityProvider, LocalSettings
from services.identity.audit.attempts import Attempts, changed
from services.identity.inactive_rules import warn_of_short
from services.identity.provider_ready import ANSWERS, READY, Verdict, judge_settings, say
from services.identity.providers.running import Providers, place

TEST_DEADLINE_S = 20.0
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_ADDRESS = {"ldap": "servers", "activeDirectory": "servers", "github": "url", "oidc": "issuer"}
"""The field that says whom the secret is shown to."""
_INACTIVE_FIELDS = ("disable_inactive_after", "disable_inactive_services_after")
_TOLD = 20


async def _nobody(_settings: LocalSettings) -> list[str]:
    return []


class IdentityProviderStrategy(Strategy[IdentityProvider]):
    """The name is part of principal ids, so it is a label."""

    model = IdentityProvider
    name_is_label = True

    def __init__(
        self, providers: Providers, ring: KeyRing, attempts: Attempts, preview: Callable[[LocalSettings], Awaitable[list[str]]] = _nobody
    ) -> None:  # fmt: skip
        self._providers = providers
        self._ring = ring
        self._attempts = attempts
        self._preview = preview

    async def prepare(self, ctx: WriteContext, old: IdentityProvider | None, new: IdentityProvider) -> IdentityProvider:
        """Secrets in the spec are sealed into `private`; one that is left out stays what it was."""
        settings, kind = new.spec.settings, new.spec.type
        sealed = dict(new.private.sealed)
        cleared = {}
        for field in SECRET_FIELDS[kind]:
            given = getattr(settings, field)
            if given:
                kept = sealed.get(field)
                if kept is None or self._ring.open(kept, place(new, field)) != given:
                    sealed[field] = self._ring.seal(given, place(new, field))
                cleared[field] = ""
        if cleared:
            settings = settings.model_copy(update=cleared)
            new.spec = new.spec.model_copy(update={SETTINGS_FIELDS[kind]: settings})
        _forget_applied(new)
        new.private = new.private.model_copy(update={"sealed": sealed})
        new.status = new.status.model_copy(update={"secrets": sorted(map(to_camel, sealed))})
        return new

    async def admit(self, ctx: WriteContext, old: IdentityProvider | None, new: IdentityProvider) -> None:
        if ctx.subresource:
            raise errors.Denied(
                "the status of a provider is written by the hub alone", kind="IdentityProvider", name=new.name
            )
        if (new.name == LOCAL) != (new.spec.type == LOCAL):
            raise self._forbidden(new, "spec.type", f'"{LOCAL}" is the name of the one provider of that type')
        if old is not None:
            self._check_change(old, new)
        if new.name == LOCAL:
            await self._tell_of_inactive(ctx, old, new)
        if new.spec.enabled and (
            old is None or not old.spec.enabled or old.spec.settings != new.spec.settings or old.private != new.private
        ):
            await self._test(new)
            new.status = new.status.model_copy(update={"last_tested": ctx.now})
            self._say(ctx, new, ANSWERS)
        else:
            self._say(ctx, new, None)

    async def _tell_of_inactive(self, ctx: WriteContext, old: IdentityProvider | None, new: IdentityProvider) -> None:
        """Whom a new policy hits at once; with a dry run that is the way to try it out."""
        before = (old.spec.local if old is not None else None) or LocalSettings()
        settings = new.spec.local or LocalSettings()
        if all(getattr(before, name) == getattr(settings, name) for name in _INACTIVE_FIELDS):
            return
        ctx.warnings += warn_of_short(settings)
        names = await self._preview(settings)
        if names:
            more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
            ctx.warnings.append(
                f"disabled at once for not being used: {len(names)} users: {', '.join(names[:_TOLD])}{more}; keepWhenInactive: true in the spec of a user prevents it"
            )

    @staticmethod
    def _say(ctx: WriteContext, new: IdentityProvider, seen: Verdict | None) -> None:
        """Keep the condition Ready; `seen`: by a test just now. What was known of the same settings is known of this generation."""
        verdict, before = judge_settings(new) or seen, new.status.condition(READY)
        if verdict is None and before is not None:
            verdict = Verdict(before.status == "True", before.reason, before.message)
        if verdict is not None:
            new.status = new.status.model_copy(deep=True)
            say(new, verdict, ctx.now)

    async def admit_delete(self, ctx: WriteContext, old: IdentityProvider) -> None:
        if old.name == LOCAL:
            raise self._forbidden(old, "metadata.name", "the hub's own provider stays; disable it when nobody needs it")

    async def after_write(self, ctx: WriteContext, old: IdentityProvider | None, new: IdentityProvider | None) -> None:
        action = changed("provider", old, new)
        if old is not None and new is not None and not action and old.private != new.private:
            action = "change-provider"
        if action:
            provider = new or old
            assert provider is not None
            self._attempts.note(
                action, caller=ctx.principal, provider=provider.name, resource="identityproviders", name=provider.name
            )

    def _check_change(self, old: IdentityProvider, new: IdentityProvider) -> None:
        if old.spec.type != new.spec.type:
            raise self._forbidden(new, "spec.type", "the type of a provider cannot change: make another provider")
        field = _ADDRESS.get(new.spec.type)
        if field is None or getattr(old.spec.settings, field) == getattr(new.spec.settings, field):
            return
        kept = [name for name, sealed in new.private.sealed.items() if old.private.sealed.get(name) == sealed]
        if kept:
            raise self._forbidden(
                new, f"spec.{new.spec.type}.{to_camel(kept[0])}",
                f"give the secret again: it would be shown to another address than it was given for ({field} changed)",
            )  # fmt: skip

    async def _test(self, new: IdentityProvider) -> None:
        provider = self._providers.make(new)
        if provider is None:
            return
        try:
            async with asyncio.timeout(TEST_DEADLINE_S):
                await provider.test()
        except TimeoutError as exc:
            raise self._untested(new, f"the provider did not answer the test within {TEST_DEADLINE_S:.0f} s") from exc
        except errors.HerdsmanError as exc:
            raise self._untested(new, exc.message) from exc
        finally:
            await provider.aclose()

    @staticmethod
    def _untested(new: IdentityProvider, message: str) -> errors.HerdsmanError:
        return IdentityProviderStrategy._forbidden(
            new, "spec.enabled", f"the test of the settings failed, so that nobody could sign in: {message}"
        )

    @staticmethod
    def _forbidden(new: IdentityProvider, field: str, message: str) -> errors.HerdsmanError:
        return validate.forbidden_field(IdentityProvider, new.name, field, message)


def _forget_applied(new: IdentityProvider) -> None:
    """`kubectl apply` keeps what it was given in an annotation, secrets too: they are taken out of there as well."""
    annotations = new.metadata.annotations or {}
    text = annotations.get(_LAST_APPLIED)
    if text is None:
        return
    try:
        applied = json.loads(text)
        settings = applied["spec"][new.spec.type]
        for field in SECRET_FIELDS[new.spec.type]:
            settings.pop(to_camel(field), None)
            settings.pop(field, None)
    except (ValueError, KeyError, TypeError, AttributeError):
        kept = {name: value for name, value in annotations.items() if name != _LAST_APPLIED}
    else:
        kept = {**annotations, _LAST_APPLIED: json.dumps(applied, separators=(",", ":")) + "\n"}
    new.metadata = new.metadata.model_copy(update={"annotations": kept or None})
