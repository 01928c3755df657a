"""Ends the sign-ins of a provider that was disabled or deleted. Keys are provider names.

The front door refuses them at once by itself; this removes what would begin to count again if the provider came back under the same name. Bindings
stay: they are an administrator's words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources.providers import LOCAL
from services.identity.audit.attempts import Attempts
from services.identity.providers.running import Providers
from services.identity.tokens import Tokens

if TYPE_CHECKING:
    from libs.common.store.informer import Change


class ProviderEnds:
    """One provider at a time."""

    def __init__(self, providers: Providers, tokens: Tokens, attempts: Attempts) -> None:
        self._providers = providers
        self._tokens = tokens
        self._attempts = attempts

    async def reconcile(self, name: str) -> Outcome:
        provider = self._providers.resource(name)
        if provider is not None and provider.spec.enabled and not provider.deleting:
            return DONE
        if name == LOCAL and provider is None:
            # A hub that never wrote it down has it.
            return DONE
        ended = await self._tokens.revoke_of_provider(name)
        if ended:
            log.get("identity").info("provider_sign_ins_ended", provider=name, tokens_revoked=ended)
            self._attempts.note(
                "revoke-token", "provider_ended", provider=name, resource="identityproviders", name=name, note=f"{ended} tokens revoked"
            )  # fmt: skip
        return DONE


def keys_of_provider(change: Change) -> Iterable[str]:
    return (change.key.partition(".")[2],)
