"""Ends the tokens of a credential that was deleted or disabled. Keys are `<origin of the tokens> <uid of their user>`.

The front door refuses them at once by itself; this removes what would begin to count again if the credential were enabled again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from libs.common.access.federation import is_usable, origin_of
from libs.common.observe import log
from libs.common.reconcile import DONE, Outcome
from libs.common.resources import codec
from libs.common.resources.federation import FederatedCredential
from libs.common.store.objects import Objects
from services.identity.audit.attempts import Attempts
from services.identity.federation.sources import SourceKey, Sources
from services.identity.tokens import Tokens

if TYPE_CHECKING:
    from libs.common.store.informer import Change


class FederationEnds:
    """One credential at a time. Forgets the keys of issuers that no credential names any more, too."""

    def __init__(
        self, known: Objects[FederatedCredential], tokens: Tokens, sources: Sources, attempts: Attempts
    ) -> None:
        self._attempts = attempts
        self._known = known
        self._tokens = tokens
        self._sources = sources

    async def reconcile(self, key: str) -> Outcome:
        origin, _, user_uid = key.partition(" ")
        counting = [c for c in self._known.all() if is_usable(c)]
        await self._sources.keep(SourceKey.of(c.spec) for c in counting)
        if any(origin_of(c) == origin for c in counting):
            return DONE
        ended = await self._tokens.revoke_all(user_uid, provider=origin)
        if ended:
            log.get("identity").info("federated_tokens_ended", credential=origin, tokens_revoked=ended)
            self._attempts.note(
                "revoke-token", "credential_ended", resource="federatedcredentials", name=origin, note=f"{ended} tokens revoked"
            )  # fmt: skip
        return DONE


def keys_of_credential(change: Change) -> Iterable[str]:
    """Of what was there before and of what is there now: one may be made again under the same name."""
    found = [
        codec.decode(FederatedCredential, entry.value, entry.revision)
        for entry in (change.before, change.after)
        if entry is not None
    ]
    return {f"{origin_of(c)} {c.spec.user_uid}" for c in found}
